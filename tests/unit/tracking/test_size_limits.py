"""Size budgets: the counted size is never below the size of the response, and removals free space."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import count

import pytest
from google.protobuf.message import Message
from hypothesis import given as for_all
from hypothesis import strategies as st

from eventstore.errors import Kind, Rejected
from eventstore.testing import given
from rollforward import v1
from services.tracking.deciders.experiments import EXPERIMENTS
from services.tracking.deciders.logged_models import LOGGED_MODELS
from services.tracking.deciders.run_commands import LogArtifact
from services.tracking.deciders.run_state import budget_after
from services.tracking.deciders.runs import RUNS
from services.tracking.deciders.size_limits import LARGEST_EXPERIMENT, LARGEST_RUN, SizeBudget
from services.tracking.events import run_event

RUN, MODEL = "0" * 31 + "a", "m-" + "0" * 31 + "a"
DIGEST = f"sha256:{'1' * 64}"
MESSAGE_BYTES = 4 * 1024 * 1024
POINT = v1.Series(key="loss", steps=bytes(8), timestamps=bytes(8), values=bytes(8))

texts = st.one_of(st.sampled_from(["a", "b"]), st.text(st.sampled_from("aé模"), max_size=300))
labels = st.dictionaries(texts, texts, max_size=3)
datasets = st.builds(v1.Dataset, name=texts, digest=texts, schema=texts)
input_datasets = st.builds(v1.DatasetInput, dataset=datasets, tags=labels)
output_models = st.builds(v1.ModelOutput, model_id=texts, step=st.integers(-5, 5))
payloads = st.one_of(
    st.builds(v1.RunLogged, params=labels, tags=labels, removed_tags=st.lists(texts, max_size=2)),
    st.builds(v1.ArtifactLogged, path=texts, digest=texts, size_bytes=st.integers(0, 2**64 - 1)),
    st.builds(
        v1.RunInputsLogged,
        inputs=st.lists(
            st.builds(
                v1.DatasetInput, dataset=st.builds(v1.Dataset, name=texts, digest=texts, schema=texts), tags=labels
            ),
            max_size=2,
        ),
    ),
    st.builds(
        v1.RunOutputsLogged,
        outputs=st.lists(st.builds(v1.ModelOutput, model_id=texts, step=st.integers(-5, 5)), max_size=2),
    ),
)
starts = st.builds(v1.RunStarted, tags=labels, source=st.builds(v1.RunSource, packages=st.lists(texts, max_size=3)))


def view(past: Sequence[Message]) -> v1.Run:
    """Return the run that a response shows after these events."""
    run = v1.Run()
    inputs, outputs, artifacts = (dict[object, Message]() for _ in range(3))
    for payload in past:
        match payload:
            case v1.RunStarted():
                run.source.CopyFrom(payload.source)
                run.tags.update(payload.tags)
            case v1.RunLogged():
                for key in payload.removed_tags:
                    run.tags.pop(key, None)
                run.params.update(payload.params)
                run.tags.update(payload.tags)
            case v1.ArtifactLogged():
                artifact = v1.RunArtifact(path=payload.path, digest=payload.digest, size_bytes=payload.size_bytes)
                artifacts[payload.path] = artifact
            case v1.RunInputsLogged():
                inputs.update(((read.dataset.name, read.dataset.digest), read) for read in payload.inputs)
            case v1.RunOutputsLogged():
                outputs.update((output.model_id, output) for output in payload.outputs)
            case _:
                raise AssertionError(payload)
    whole = v1.Run(inputs=inputs.values(), outputs=outputs.values(), artifacts=artifacts.values())  # type: ignore[arg-type]
    run.MergeFrom(whole)
    return run


@for_all(starts, st.lists(payloads, max_size=8))
def test_counted_size_is_at_least_response_size(start: v1.RunStarted, later: list[Message]) -> None:
    past = [start, *later]
    budget, run = reduce(budget_after, map(run_event, past), SizeBudget()), view(past)
    assert budget.taken >= run.ByteSize()
    assert budget.taken == sum(budget.parts.values())
    assert {key for kind, key in (part for part in budget.parts if part[0] == "tag")} == set(run.tags)


def many(first: int, number: int, value: str = "x" * 6_000) -> dict[str, str]:
    """Return labels, of 6 kB each by default."""
    return {f"k{at}": value for at in range(first, first + number)}


def full(*payloads: Message) -> Sequence[Message]:
    """Return the events of a run whose size budget is nearly exhausted."""
    logged = [v1.RunLogged(run_id=RUN, params=many(0, 160), tags=many(first, 165)) for first in (0, 165)]
    return [v1.RunStarted(run_id=RUN), *logged, *payloads]


def dataset(size: int) -> v1.LogLineageRequest:
    """Return a request that logs a dataset with a schema of `size` characters."""
    read = v1.DatasetInput(dataset=v1.Dataset(name="train", digest="d1", schema="x" * size))
    return v1.LogLineageRequest(run_id=RUN, inputs=[read])


class TestRun:
    @pytest.mark.parametrize(
        "command",
        [
            v1.LogBatchRequest(run_id=RUN, params=many(900, 20)),
            v1.LogBatchRequest(run_id=RUN, tags=many(900, 20)),
            v1.LogBatchRequest(run_id=RUN, params=many(900, 10), tags=many(900, 10)),
            v1.LogBatchRequest(run_id=RUN, tags=many(0, 165, "y" * 6_700)),
            dataset(100_000),
        ],
        ids=count(),
    )
    def test_labels_beyond_budget_are_rejected(self, command: Message) -> None:
        refusal = given(RUNS, *full()).when(command).then_rejected("RUN_FULL")
        assert isinstance(refusal, Rejected)
        assert refusal.kind is Kind.PRECONDITION
        assert (refusal.metadata["run_id"], refusal.metadata["limit"]) == (RUN, str(LARGEST_RUN))
        assert LARGEST_RUN < int(refusal.metadata["size"]) < MESSAGE_BYTES
        assert view(full()).ByteSize() < LARGEST_RUN

    def test_artifacts_and_models_beyond_budget_are_rejected(self) -> None:
        path = "/".join(["x" * 250] * 4)
        past = [v1.ArtifactLogged(run_id=RUN, path=f"{number}/{path}", digest=DIGEST) for number in range(60)]
        log = LogArtifact(v1.LogArtifactRequest(run_id=RUN, path=path, digest=DIGEST), 10, 2)
        given(RUNS, *full(*past)).when(log).then_rejected("RUN_FULL")
        models = [v1.ModelOutput(model_id=f"m-{number:032x}") for number in range(2_000)]
        lineage = v1.LogLineageRequest(run_id=RUN, outputs=models)
        given(RUNS, *full()).when(lineage).then_rejected("RUN_FULL")

    def test_full_run_accepts_commands_that_do_not_grow_it(self) -> None:
        over = given(RUNS, *full(v1.RunLogged(run_id=RUN, params=many(900, 20))))
        for command in (
            v1.LogBatchRequest(run_id=RUN, tags={"k0": "shorter"}),
            v1.LogBatchRequest(run_id=RUN, tags={"k0": "x" * 6_000}),
            v1.LogBatchRequest(run_id=RUN, tags={"new": "x" * 5_000}, removed_tags=["k0"]),
            v1.LogBatchRequest(
                run_id=RUN, series=[v1.Series(key="a", steps=b"8" * 8, timestamps=b"8" * 8, values=b"8" * 8)]
            ),
            v1.FinishRunRequest(run_id=RUN, status=v1.RUN_STATUS_FINISHED),
            v1.RenameRunRequest(run_id=RUN, new_name="new"),
        ):
            assert over.when(command).events

    def test_removed_tags_free_budget(self) -> None:
        removed = v1.RunLogged(run_id=RUN, removed_tags=list(many(0, 20)))
        assert given(RUNS, *full(removed)).when(v1.LogBatchRequest(run_id=RUN, params=many(900, 20))).events


def test_logged_model_rejects_labels_beyond_budget() -> None:
    created = v1.LoggedModelCreated(model_id=MODEL, params=many(0, 160))
    tags = [v1.TagChange(key=key, to_value="x" * 6_000) for key in many(0, 330)]
    model = given(LOGGED_MODELS, created, v1.LoggedModelTagsChanged(model_id=MODEL, changes=tags))
    for command in (
        v1.LogLoggedModelRequest(model_id=MODEL, params=many(900, 20)),
        v1.LogLoggedModelRequest(model_id=MODEL, set_tags=many(900, 20)),
    ):
        assert model.when(command).then_rejected("LOGGED_MODEL_FULL").metadata["model_id"] == MODEL
    assert model.when(
        v1.LogLoggedModelRequest(model_id=MODEL, params=many(900, 20), removed_tags=[*many(0, 20)])
    ).events


def test_experiment_rejects_tags_beyond_budget() -> None:
    created = v1.ExperimentCreated(experiment_id="1", name="fraud", tags=many(0, 160))
    experiment = given(EXPERIMENTS, created)
    refusal = experiment.when(v1.ChangeExperimentTagsRequest(experiment_id="1", set=many(900, 10)))
    assert refusal.then_rejected("EXPERIMENT_FULL").metadata["limit"] == str(LARGEST_EXPERIMENT)
    change = v1.ChangeExperimentTagsRequest(experiment_id="1", set=many(900, 10), remove=[*many(0, 10)])
    assert experiment.when(change).events
    given(EXPERIMENTS).when(v1.CreateExperimentRequest(name="a", tags=many(0, 170))).then_rejected("EXPERIMENT_FULL")
