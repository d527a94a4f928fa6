"""A data directory of release 0.1, which had no epochs, opens unchanged, and clients of 0.1 still work.

`data_of_0_1.tar.xz` was written by commit 4d4c72d: a model with two versions whose alias moved three times, a run, a
webhook, a pod and a snapshot of the registry's rows.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollforward import v1
from tests.integration.up import SECONDS, Up, up

HEADS = {"tracking": 2, "registry": 6, "serving": 1, "webhooks": 1}
CHAMPION: dict[str, Any] = {"model": "fraud", "alias": "champion"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data directory, as 0.1 left it."""
    home = tmp_path_factory.mktemp("old")
    with tarfile.open(Path(__file__).with_name("data_of_0_1.tar.xz")) as archive:
        archive.extractall(home, filter="data")
    return home / "data"


@pytest.fixture(scope="module")
def services(data: Path) -> Iterator[Up]:
    """Yield services that use that directory."""
    with up(data) as running:
        yield running


def test_logs_are_in_their_first_epoch(services: Up) -> None:
    status = services.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
    assert {log.name: log.head for log in status.logs} == HEADS
    assert {log.epoch for log in status.logs} == {1}


def test_rows_are_not_recomputed(services: Up, data: Path) -> None:
    status = services.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
    with tarfile.open(Path(__file__).with_name("data_of_0_1.tar.xz")) as archive:
        archived = re.findall(r"rows/rf_(\w+)_([0-9a-f]{10})_1\.db", " ".join(archive.getnames()))
    for projection in status.projections:
        # A projection that has changed since has another fingerprint, and other rows.
        if (projection.name.replace("-", "_"), projection.fingerprint) in archived:
            assert projection.generation == 1
    assert not list((data / "rows").glob("lost_*"))


def test_data_of_0_1_is_readable(services: Up) -> None:
    resolved = services.registry.ResolveAlias(v1.ResolveAliasRequest(**CHAMPION), timeout=SECONDS)
    assert (resolved.alias.version, resolved.alias.revision, resolved.epoch) == (1, 6, 0)
    history = services.registry.ListAliasHistory(v1.ListAliasHistoryRequest(**CHAMPION), timeout=SECONDS)
    assert [change.to_version for change in history.changes] == [1, 2, 1]
    run = services.tracking.GetRun(v1.GetRunRequest(run_id=f"{1:032}"), timeout=SECONDS).run
    assert run.name == "old"


def test_client_without_epoch_works(services: Up) -> None:
    header = (("rollforward-min-position", "registry=6"),)
    model = services.registry.GetModel(v1.GetModelRequest(name="fraud"), metadata=header, timeout=SECONDS)
    assert model.model.aliases[0].revision == 6
    watch = services.registry.WatchAliases(v1.WatchAliasesRequest(from_revision=5), timeout=SECONDS)
    assert next(watch).changes.changes[0].revision == 6
    watch.cancel()
    pod = v1.WatchAssignmentsRequest(pod_id=f"{2:032}", targets=[v1.Target(**CHAMPION)])
    assignments = services.serving.WatchAssignments(pod, timeout=SECONDS)
    assert next(assignments).assignments[0].revision == 6
    assignments.cancel()
    move = v1.MoveAliasRequest(**CHAMPION, version=2, expected_revision=6)
    assert services.registry.MoveAlias(move, timeout=SECONDS).position == 7
    applied = v1.Assignment(target=v1.Target(**CHAMPION), version=2, revision=7)
    acknowledge = v1.AcknowledgeAssignmentRequest(pod_id=f"{2:032}", assignment=applied)
    assert services.serving.AcknowledgeAssignment(acknowledge, timeout=SECONDS).position == 2
