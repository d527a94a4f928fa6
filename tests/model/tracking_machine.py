"""A state machine of the tracking log and its rows, with invariants."""

from __future__ import annotations

import asyncio
import math
import random
import uuid
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from eventstore.event import Metadata, NewEvent, RecordedEvent
from eventstore.memory import MemoryStore
from eventstore.projections.database import Database
from eventstore.projections.generations import Generations
from eventstore.projections.projector import Projector
from eventstore.tail import Tail
from rollforward import v1
from services import tracking
from services.registry.projection import runs as known
from services.tracking.projection.apply import TrackingProjection
from services.tracking.projection.tables import CHUNK_POINTS, PIECE_POINTS
from services.tracking.queries import metric_history as statements
from services.tracking.queries import runs
from tests.model.tracking_fold import Fold, Point, latest, packed, shown, text, unpacked

T = TypeVar("T")

NAN, INF = math.nan, math.inf
RUN_IDS = tuple(digit * 32 for digit in "abc")
MODEL_IDS = tuple(f"m-{digit * 32}" for digit in "de")
KEYS = ("loss", "acc")

few = st.tuples(st.integers(-1, 3), st.integers(0, 2), st.sampled_from([NAN, -INF, -1.0, -0.0, 0.0, 0.5, 1.0, INF]))
many = st.builds(
    lambda size, first: [(first + at, at % 3, at / 8) for at in range(size)],
    st.sampled_from([PIECE_POINTS - 1, PIECE_POINTS + 1, CHUNK_POINTS - PIECE_POINTS, CHUNK_POINTS + 1]),
    st.integers(-2, 2),
)
columns = st.one_of(st.lists(few, min_size=1, max_size=4), many)

run_ids, model_ids = st.sampled_from(RUN_IDS), st.sampled_from(MODEL_IDS)
labels = st.dictionaries(st.sampled_from("xyz"), st.sampled_from(["1", "2", "long" * 50]), max_size=2)
times = st.builds(Timestamp, seconds=st.integers(0, 9))
experiment_ids = st.sampled_from("12")
changes = st.lists(
    st.builds(v1.TagChange, key=st.sampled_from("xyz"), to_value=st.none() | st.just("3")), min_size=1, max_size=2
)


@st.composite
def logged_metrics(draw: st.DrawFn) -> v1.MetricsLogged:
    """Draw points, some of them late, repeated or out of order, some of a logged model."""
    series = [packed(draw(st.sampled_from(KEYS)), draw(columns)) for _ in range(draw(st.integers(1, 3)))]
    for one in series:
        one.model_id = draw(st.sampled_from(["", "", *MODEL_IDS]))
        one.dataset_name = draw(st.sampled_from(["", "train"]))
    return v1.MetricsLogged(run_id=draw(run_ids), series=series)


datasets = st.builds(v1.Dataset, name=st.sampled_from("uv"), digest=st.sampled_from("12"))
used = st.builds(v1.DatasetInput, dataset=datasets, tags=st.dictionaries(st.just("context"), st.sampled_from("ab")))
made = st.builds(v1.ModelOutput, model_id=model_ids, step=st.integers(0, 5))
endings = st.sampled_from([v1.RUN_STATUS_FINISHED, v1.RUN_STATUS_FAILED, v1.RUN_STATUS_KILLED])
texts = st.sampled_from(["one", "two"])
digests = st.sampled_from(["sha256:1", "sha256:2"])

payloads = st.one_of(
    logged_metrics(),
    logged_metrics(),
    st.builds(
        v1.RunLogged,
        run_id=run_ids,
        params=labels,
        tags=labels,
        removed_tags=st.lists(st.sampled_from("xyz"), max_size=2),
    ),
    st.builds(v1.RunInputsLogged, run_id=run_ids, inputs=st.lists(used, min_size=1, max_size=2)),
    st.builds(v1.RunOutputsLogged, run_id=run_ids, outputs=st.lists(made, min_size=1, max_size=2)),
    st.builds(v1.ArtifactLogged, run_id=run_ids, path=texts, digest=digests, size_bytes=st.just(2**40)),
    st.builds(v1.RunFinished, run_id=run_ids, status=endings, end_time=st.none() | times),
    st.builds(v1.RunLost, run_id=run_ids, last_heard=times),
    *(st.builds(payload, run_id=run_ids) for payload in (v1.RunResumed, v1.RunDeleted, v1.RunRestored)),
    st.builds(v1.RunRenamed, run_id=run_ids, to_name=texts),
    st.builds(v1.RunDescribed, run_id=run_ids, description=texts),
    st.builds(v1.ExperimentRenamed, experiment_id=experiment_ids, to_name=texts),
    st.builds(v1.ExperimentTagsChanged, experiment_id=experiment_ids, changes=changes),
    *(st.builds(payload, experiment_id=experiment_ids) for payload in (v1.ExperimentDeleted, v1.ExperimentRestored)),
    st.builds(v1.LoggedModelParamsLogged, model_id=model_ids, params=labels),
    st.builds(v1.LoggedModelTagsChanged, model_id=model_ids, changes=changes),
    st.builds(v1.LoggedModelArtifactLogged, model_id=model_ids, digest=digests, size_bytes=st.just(7)),
    st.builds(v1.LoggedModelFinalized, model_id=model_ids, status=st.sampled_from([v1.LOGGED_MODEL_STATUS_READY])),
    *(st.builds(payload, model_id=model_ids) for payload in (v1.LoggedModelDeleted, v1.LoggedModelRestored)),
)


class Tracking(RuleBasedStateMachine):
    """Random events, restarts and rebuilds over a log in memory and rows in a database that is empty."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self._location = location
        self._loop = asyncio.new_event_loop()
        self._log = MemoryStore("tracking", tracking.EVENTS)
        self._fold = Fold()
        self._folded = 0
        self._begun: set[str] = set()

    def run(self, job: Awaitable[T]) -> T:
        """Run a job on the loop."""
        return self._loop.run_until_complete(_awaited(job))

    @initialize()
    def begin(self) -> None:
        """Create two experiments and the first run."""
        payloads: list[Message] = [
            v1.ExperimentCreated(experiment_id=number, name="e", tags={"x": "1"}) for number in "12"
        ]
        self._append([*payloads, v1.RunStarted(run_id=RUN_IDS[0], experiment_id="1")])
        self.start()

    def start(self) -> None:
        """Open the rows, the first time or again."""
        database = Database(self._location)
        self._tail = Tail(self._log)
        self._rows = Projector(self._tail, TrackingProjection(), database)
        self._known = Projector(self._tail, known.RunsProjection(), database)
        for part in (self._tail, self._rows, self._known):
            self.run(part.start())

    def stop(self) -> None:
        """Close the rows."""
        for part in (self._rows, self._known, self._tail):
            self.run(part.stop())

    def teardown(self) -> None:
        """Build the rows again from differently cut batches, and stop everything."""
        try:
            self._catch_up()
            self.check_cuts()
        finally:
            self.stop()
            self._loop.close()

    @rule(run_id=run_ids, experiment_id=experiment_ids, tags=labels, scheduled=st.booleans(), known=st.booleans())
    def start_run(self, run_id: str, experiment_id: str, tags: dict[str, str], scheduled: bool, known: bool) -> None:
        """Start a run."""
        if run_id not in self._fold.runs:
            source = v1.RunSource(git_commit="1" * 40, packages=["numpy==2.0"]) if known else None
            begun = {"tags": tags, "scheduled": scheduled, "parent_run_id": RUN_IDS[0], "source": source}
            self._append([v1.RunStarted(run_id=run_id, experiment_id=experiment_id, **begun)])  # type: ignore[arg-type]

    @rule(model_id=model_ids, experiment_id=experiment_ids, params=labels, tags=labels, after=logged_metrics())
    def create_model(
        self, model_id: str, experiment_id: str, params: dict[str, str], tags: dict[str, str], after: v1.MetricsLogged
    ) -> None:
        """Create a logged model between points that name it."""
        if model_id not in self._fold.models:
            for series in after.series:
                series.model_id = model_id
            begun = v1.LoggedModelCreated(model_id=model_id, experiment_id=experiment_id, params=params, tags=tags)
            self._append([after, begun, after])

    @rule(together=st.lists(payloads, min_size=1, max_size=8))
    def log(self, together: list[Message]) -> None:
        """Append some events at once."""
        self._append(together)

    @rule(one=payloads)
    def log_one(self, one: Message) -> None:
        """Append one event."""
        self._append([one])

    @rule()
    def restart(self) -> None:
        """Stop the process and start it again."""
        self.stop()
        self.start()

    @rule(which=st.booleans())
    def rebuild(self, which: bool) -> None:
        """Build the rows again, and check that they are equal."""

        async def work() -> Sequence[Any]:
            return [step async for step in (self._rows if which else self._known).rebuild()]

        last = self.run(work())[-1]
        assert last.live_digest == last.rebuilt_digest != ""

    @invariant()
    def rows_are_the_fold(self) -> None:
        """Check that experiments, runs and logged models equal the log."""
        self._catch_up()
        self.run(self._rows.query(self._check))

    def _check(self, connection: sa.Connection) -> None:
        for experiment_id, experiment in self._fold.experiments.items():
            asked = v1.GetExperimentRequest(experiment_id=experiment_id)
            assert shown(runs.experiment(connection, asked)) == shown(experiment)
        for run_id in self._fold.runs:
            assert shown(runs.run(connection, run_id)) == self._fold.run(run_id)
        for model_id in self._fold.models:
            assert shown(runs.logged_model(connection, model_id)) == self._fold.model(model_id)

    @invariant()
    def histories_are_what_was_logged(self) -> None:
        """Check the order of points: by step, time and arrival."""
        self._catch_up()
        for (run_id, key), points in self._fold.points.items():
            found = self.run(self._history(run_id, key))
            assert text(found) == text(sorted(points, key=lambda point: point[:2]))

    async def _history(self, run_id: str, key: str) -> list[Point]:
        request = v1.GetMetricHistoryRequest(run_id=run_id, key=key)
        found = statements.history(self._rows, request)
        return [point async for response in found for point in unpacked(response.series)]

    @invariant()
    def a_gate_sees_what_was_logged(self) -> None:
        """Check that the registry has parameters, latest values and artifacts, deleted experiments included."""
        self._catch_up()
        for run_id, run in self._fold.runs.items():
            seen, _ = self.run(self._known.query(lambda rows, run_id=run_id: known.evidence(rows, run_id)))  # type: ignore[misc]
            logged = {key: points for (of, key), points in self._fold.points.items() if of == run_id}
            assert {key: repr(value + 0.0) for key, value in seen.metrics.items()} == {
                key: repr(latest(points)[2] + 0.0) for key, points in logged.items()
            }
            assert dict(seen.params) == dict(run.params)

    def check_cuts(self) -> None:
        """Check that the rows are the same however the log is cut into batches."""
        happened = self.run(self._all_events())
        assert self._rows.position == len(happened)
        digest = self._rows.generation.digest()
        chance = random.Random(len(happened))
        for max_size in (1, 3, 40):
            generations = Generations(TrackingProjection(), Database(self._location))
            rows, at = generations.create_unread(), 0
            while at < len(happened):
                call = happened[at : at + chance.randint(1, max_size)]
                generations.apply(rows, at, call, live=False)
                at += len(call)
            found = rows.digest()
            generations.discard(rows)
            assert found == digest

    async def _all_events(self) -> list[RecordedEvent]:
        found: list[RecordedEvent] = []
        head = await self._log.head()
        async for batch in self._log.subscribe():
            found += batch
            if len(found) >= head:
                break
        return found

    def _catch_up(self) -> None:
        head = self.run(self._log.head())
        self.run(self._rows.wait_for(head))
        self.run(self._known.wait_for(head))
        if self._folded < head:
            for event in self.run(self._all_events())[self._folded :]:
                self._fold.add(event)
            self._folded = head

    def _append(self, payloads: Sequence[Message]) -> None:
        """Append events, except those of runs that have not started: no command makes them."""
        payloads = [payload for payload in payloads if self._is_due(payload)]
        ids = [uuid.uuid4().hex for _ in payloads]
        events = [
            NewEvent(_stream(payload), payload, Metadata("Zoë"), event_id, event_id)
            for payload, event_id in zip(payloads, ids, strict=True)
        ]
        if events:
            self.run(self._log.append(events))

    def _is_due(self, payload: Message) -> bool:
        if isinstance(payload, v1.RunStarted):
            self._begun.add(payload.run_id)
        return not hasattr(payload, "run_id") or payload.run_id in self._begun


def _stream(payload: Any) -> str:
    if isinstance(payload, v1.MetricsLogged):
        return tracking.metrics_stream(payload.run_id)
    if hasattr(payload, "run_id"):
        return tracking.run_stream(payload.run_id)
    return (
        tracking.logged_model_stream(payload.model_id) if hasattr(payload, "model_id") else tracking.EXPERIMENTS_STREAM
    )


async def _awaited(job: Awaitable[T]) -> T:
    return await job
