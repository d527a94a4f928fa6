"""Watching aliases: a snapshot, then every change, in order, each once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from rollforward import v1
from rollforward.errors import (
    InvalidRequest,
    from_rpc_error,
)
from tests.integration.up import SECONDS, Up

pytestmark = pytest.mark.busy


class TestWatch:
    def watch(self, system: Up, **fields: object) -> Any:
        headers = (("rollforward-min-position", f"registry={system.heads()['registry']}"),)
        request = v1.WatchAliasesRequest(**fields)  # type: ignore[arg-type]
        return system.registry.WatchAliases(request, metadata=headers, timeout=SECONDS)

    def test_watch_delivers_snapshot_then_every_change(self, system: Up, model: str) -> None:
        first = system.move(model, 1)
        watch = self.watch(system, model=model)
        snapshot = next(watch)
        assert snapshot.WhichOneof("step") == "snapshot"
        assert list(snapshot.snapshot.aliases) == [first.alias]
        assert snapshot.position >= first.position
        second = system.move(model, 2)
        system.move(system.new_model(1), 1)
        removal = v1.RemoveAliasRequest(model=model, alias="champion")
        removed = system.registry.RemoveAlias(removal, timeout=SECONDS).position
        steps = [next(watch), next(watch)]
        assert [(step.position, step.changes.changes[0].to_version) for step in steps] == [
            (second.position, 2), (removed, 0),
        ]  # fmt: skip
        watch.cancel()

    def test_watch_from_revision_has_no_snapshot(self, system: Up, model: str) -> None:
        revisions = [system.move(model, version).position for version in (1, 2, 1)]
        watch = self.watch(system, model=model, from_revision=revisions[0])
        assert [next(watch).changes.changes[0].revision for _ in range(2)] == revisions[1:]
        watch.cancel()

    def test_watch_filters_by_model_and_alias(self, system: Up, model: str) -> None:
        other = system.new_model(1)
        start = system.heads()["registry"]
        for name, alias in ((model, "champion"), (other, "champion"), (model, "only"), (other, "only")):
            system.move(name, 1, alias)
        seen_by = {
            key: [next(watch).changes.changes[0] for _ in range(number)]
            for key, watch, number in (
                ("all", self.watch(system, from_revision=start), 4),
                ("model", self.watch(system, from_revision=start, model=model), 2),
                ("alias", self.watch(system, from_revision=start, alias="only"), 2),
                ("both", self.watch(system, from_revision=start, model=other, alias="only"), 1),
            )
        }
        assert {key: [(change.model, change.alias) for change in changes] for key, changes in seen_by.items()} == {
            "all": [(model, "champion"), (other, "champion"), (model, "only"), (other, "only")],
            "model": [(model, "champion"), (model, "only")],
            "alias": [(model, "only"), (other, "only")],
            "both": [(other, "only")],
        }
        snapshot = next(self.watch(system, model=other, alias="only")).snapshot
        assert [(alias.model, alias.alias) for alias in snapshot.aliases] == [(other, "only")]

    def test_watch_from_past_delivers_every_change_once(self, system: Up, model: str) -> None:
        start = system.move(model, 2).position
        past = [system.move(model, version).position for version in (1, 2) * 15]
        watch = self.watch(system, model=model, from_revision=start)
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(lambda: [system.move(model, version).position for version in (1, 2) * 15])
            received = [next(watch) for _ in range(60)]
            assert [step.position for step in received] == past + writing.result()
        watch.cancel()

    def test_many_watches_receive_same_changes(self, system: Up, model: str) -> None:
        watches = [self.watch(system, model=model) for _ in range(10)]
        assert all(next(watch).HasField("snapshot") for watch in watches)
        moved = [system.move(model, version).position for version in (1, 2, 1)]
        for watch in watches:
            assert [next(watch).position for _ in moved] == moved
            watch.cancel()

    @pytest.mark.timeout(60)
    def test_watch_delivers_bookmarks_without_own_changes(self, system: Up, model: str) -> None:
        other = system.new_model(2)
        watch = self.watch(system, model=model)
        begun = next(watch).position
        done = threading.Event()

        def disturb() -> None:
            while not done.is_set():
                for version in (1, 2):
                    system.move(other, version)

        with ThreadPoolExecutor(1) as pool:
            disturbing = pool.submit(disturb)
            step = next(watch)
            done.set()
            disturbing.result()
        assert step.WhichOneof("step") == "bookmark"
        assert begun < step.position <= system.heads()["registry"]
        head = system.heads()["registry"]
        last = next(step for step in watch if step.position == head)
        assert last.WhichOneof("step") == "bookmark"
        watch.cancel()

    def test_revision_beyond_log_is_rejected(self, system: Up) -> None:
        for revision in (system.heads()["registry"] + 1, 2**64 - 1):
            with pytest.raises(grpc.RpcError) as refused:
                next(self.watch(system, from_revision=revision))
            error = from_rpc_error(refused.value)
            assert (type(error), error.reason) == (InvalidRequest, "POSITION_AHEAD")

    def test_watch_ends_at_deadline(self, system: Up) -> None:
        watch = system.registry.WatchAliases(v1.WatchAliasesRequest(), timeout=0.5)
        with pytest.raises(grpc.RpcError) as ended:
            for _ in watch:
                pass
        assert isinstance(ended.value, grpc.Call)
        assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
