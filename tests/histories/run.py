"""Record one history: clients, watchers and readers on their own models, and faults drawn from a seed."""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import pytest

from eventstore.event import RecordedEvent
from rollforward import Client, RollforwardError, Unavailable, new_request_id, v1
from tests.e2e.program import until
from tests.histories.checks.rebuilds import rebuild
from tests.histories.clients.cast import Cast, prepared
from tests.histories.clients.crew import Crew
from tests.histories.clients.requests import FAILED
from tests.histories.recorded.log import changes_of, gated, head, names_of, read_events
from tests.histories.recorded.recording import History
from tests.histories.recorded.subjects import Failure
from tests.histories.systems.faults import FAULTS, Nemesis
from tests.histories.systems.losing import Losing
from tests.histories.systems.system import System
from tests.timeouts import scaled

ROUND = 40
"""The number of operations answered before, between and after faults."""
SCHEDULE_SECONDS = scaled(30.0)
DELIVERY_SECONDS = scaled(30.0)


class Recorder:
    """Records histories on a running system, one after the other, until the system `is_spent`."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.is_spent = False

    def record(self, seed: int, faults: Sequence[str]) -> History:
        """Record one history; whatever goes wrong is a part of it."""
        history = History(f"h{seed}", faults=list(faults))
        history.clock = time.time_ns() - time.monotonic_ns()
        history.is_whole = False
        with self._noting(history):
            self._record(history, random.Random(seed))
        return history

    @contextmanager
    def _noting(self, history: History) -> Iterator[None]:
        """Make an error a failure of the history."""
        try:
            yield
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - whatever it is
            history.failures.append(Failure("recorder", traceback.format_exc(limit=-8)))
            self.is_spent = True

    def _record(self, history: History, dice: random.Random) -> None:
        with ExitStack() as stack:
            cast = prepared(history.name, self._system, dice, stack)
            with Crew(cast.clients, cast.namers, cast.others, cast.watchers) as crew:
                with self._noting(history):
                    self._inject_faults(history, crew, cast, dice)
                    crew.rest()
                    self._system.check_running()
                    history.goal = self._quiet_at(history, list(dict.fromkeys(one.model for one in cast.targets)))
                    crew.watch_until(history.goal)
                history.failures += crew.failures
                history.stuck = crew.stuck
            if not history.failures and not history.stuck:
                with self._noting(history):
                    self._look(history, cast, dice)
            self._collect(history, cast)
            history.is_whole = True
            self.is_spent = bool(history.failures)
        loss = next((fault for fault in history.faults if FAULTS[fault].ends), None)
        if loss and not history.failures:
            self.is_spent = True
            history.losses.append(Losing(self._system, cast.targets[0].model, dice).suffer(loss))

    def _inject_faults(self, history: History, crew: Crew, cast: Cast, dice: random.Random) -> None:
        nemesis = Nemesis(self._system, dice, crew.progress, cast.clock)
        with nemesis.restore:
            for fault in history.faults:
                crew.progress(ROUND)
                nemesis.strike(fault)
            crew.progress(ROUND)

    def _look(self, history: History, cast: Cast, dice: random.Random) -> None:
        """Read everything again, now that it is at rest."""
        for tracker in cast.trackers:
            tracker.read_last()
            history.runs.append(tracker.run())
        cast.walker.walk_all()
        history.evidence_checks.append(cast.gater.check_evidence(cast.began))
        events = asyncio.run(read_events(self._system.nats.address, cast.began))
        due = [event.id for event in events if _is_change_of(event, cast.hook.endpoint.model)]
        with suppress(AssertionError):  # the checker reports missing ones
            until(lambda: cast.hook.has(due), "all changes are delivered", DELIVERY_SECONDS)
        history.rebuilds += rebuild(self._system.addresses, dice)

    def _collect(self, history: History, cast: Cast) -> None:
        """Put together what everybody recorded, and what the log holds."""
        history.operations = [one for client in cast.clients for one in client.operations]
        history.streams = [stream for watcher in cast.watchers for stream in watcher.streams]
        history.namings = [one for namer in cast.namers for one in namer.namings]
        history.batches = [batch for tracker in cast.trackers for batch in tracker.batches]
        history.point_reads = [read for tracker in cast.trackers for read in tracker.reads]
        history.endpoints, history.deliveries = [cast.hook.endpoint], cast.hook.deliveries()
        history.gate_moves, history.walks = cast.gater.moves, cast.walker.walks
        events = asyncio.run(read_events(self._system.nats.address, cast.began))
        history.events, history.schedules = changes_of(events, {target.model for target in cast.targets})
        history.named = names_of(events, f"{history.name}-n")
        history.thresholds, history.gate_events = gated(events, cast.gater.model, cast.gater.policy)

    def _quiet_at(self, history: History, models: Sequence[str]) -> int:
        """Wait for the scheduled moves to come; return the position of the last event then."""
        clocks_jumped = any(fault.endswith("clock") for fault in history.faults)
        with Client(self._system.addresses[0], actor="setup") as client:
            if (
                not self._wait_for_schedules(client, models, 3.0 if clocks_jumped else SCHEDULE_SECONDS)
                and clocks_jumped
            ):
                # A clock that is set back is noticed after half a minute: these would come then, or in a day.
                for schedule in _schedules(client, models):
                    request = v1.CancelScheduleRequest(schedule_id=schedule.schedule_id, request_id=new_request_id())
                    request.model = schedule.model
                    with suppress(RollforwardError):
                        client.connection.call(client.connection.registry.CancelSchedule, request)
        return asyncio.run(head(self._system.nats.address))

    def _wait_for_schedules(self, client: Client, models: Sequence[str], seconds: float) -> bool:
        def have_ended() -> bool:
            try:
                return not _schedules(client, models)
            except Unavailable as error:
                return error.reason == FAILED  # none will arrive

        try:
            until(have_ended, "no move is scheduled", seconds)
        except AssertionError:
            return False  # the checker reports a missing one
        return True


def _schedules(client: Client, models: Sequence[str]) -> list[v1.Schedule]:
    requests = [v1.ListSchedulesRequest(model=model) for model in models]
    return [
        one
        for request in requests
        for one in client.connection.call(client.connection.registry.ListSchedules, request, timeout=2).schedules
    ]


def _is_change_of(event: RecordedEvent, model: str) -> bool:
    return isinstance(event.data, (v1.AliasMoved, v1.AliasRemoved)) and event.data.model == model
