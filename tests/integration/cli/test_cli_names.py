"""Lookup by prefixes of ids and by names, and suggestions for names that are not found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import rollforward as rf
from tests.integration.cli.command_line import Cli, SampleData, answer, done, refused
from tests.integration.up import Up, new_id


@pytest.fixture(scope="module")
def client(system: Up) -> Iterator[rf.Client]:
    """Return a client of the SDK."""
    with rf.Client(system.address) as connection:
        yield connection


@pytest.fixture
def twins(client: rf.Client) -> tuple[str, str]:
    """Create two runs with the same name, whose ids start with the same eight digits."""
    prefix, name = new_id()[:8], f"twin-{new_id()}"
    ids = (prefix + "0" + new_id()[:23], prefix + "1" + new_id()[:23])
    for run_id in ids:
        with client.runs.start(f"e-{new_id()}", run_id=run_id, name=name):
            pass
    return ids


def test_run_is_found_by_a_prefix_of_its_id(cli: Cli, twins: tuple[str, str]) -> None:
    first, second = twins
    assert answer(cli("runs", "show", first[:9], "-o", "json"))["run_id"] == first
    assert answer(cli("runs", "tag", second[:12], "a=1", "-o", "json"))["run_id"] == second
    compared = answer(cli("runs", "compare", first[:9], second[:9], "-o", "json"))
    assert compared["runs"] == [first, second]
    assert answer(cli("runs", "delete", first[:9], "--reason", "twin", "-o", "json"))["deleted"]
    assert not answer(cli("runs", "restore", first[:9], "-o", "json"))["deleted"]
    assert first in done(cli("runs", "watch", first[:9]))


def test_shortened_ids_from_tables_are_accepted(cli: Cli, sample: SampleData) -> None:
    table = done(cli("runs", "list", "--experiment", sample.experiment, COLUMNS="80"))
    shown = [line.split()[0] for line in table.splitlines()[1:]]
    assert [answer(cli("runs", "show", run, "-o", "json"))["run_id"] for run in shown] == list(reversed(sample.runs))


@pytest.mark.parametrize("command", ["show", "delete", "watch"])
def test_ambiguous_prefix_or_name_is_rejected_with_candidates(
    command: str, cli: Cli, client: rf.Client, twins: tuple[str, str]
) -> None:
    name = client.runs.get(twins[0]).name
    for text in (twins[0][:8], name):
        result = cli("runs", command, text)
        assert refused(result) == "AMBIGUOUS_ID"
        assert all(run_id in result.stderr for run_id in twins)
    assert not any(client.runs.get(run_id).deleted for run_id in twins)


def test_run_is_found_by_its_name(cli: Cli, client: rf.Client) -> None:
    name = f"it's-{new_id()}"
    with client.runs.start(f"e-{new_id()}", name=name) as run:
        run.log_metric("loss", 0.5)
    assert answer(cli("runs", "show", name, "-o", "json"))["run_id"] == run.run_id
    assert client.runs.find(name).run_id == run.run_id
    assert client.runs.find(run.run_id[:10]).run_id == run.run_id


@pytest.mark.parametrize("text", ["abc", "0123456789abcdef", "%", "no-such-name", "ABCDEF01"])
def test_unknown_run_is_not_found(text: str, cli: Cli) -> None:
    assert refused(cli("runs", "show", text)) == "RUN_NOT_FOUND"


def test_artifact_of_a_run_is_found_by_a_prefix(cli: Cli, sample: SampleData) -> None:
    found = answer(cli("artifacts", "list", f"runs:/{sample.runs[0][:10]}/model", "-o", "json"))
    assert {file["path"] for file in found} == {"weights.bin", "labels.json"}
    version = answer(
        cli("models", "register", f"m-{new_id()}", "--run", sample.runs[0][:10], "--artifact", "model", "-o", "json")
    )
    assert version["run_id"] == sample.runs[0]


def test_logged_models_and_schedules_are_found_by_prefixes(cli: Cli, client: rf.Client, alias: str) -> None:
    experiment = f"e-{new_id()}"
    client.experiments.create(experiment)
    model_id = client.logged_models.create(experiment, "trees")
    for text in (model_id[:10], model_id[2:12]):
        assert answer(cli("logged-models", "show", text, "-o", "json"))["model_id"] == model_id
    made = answer(cli("schedules", "create", alias, "1", "--at", "1d", "-o", "json"))
    model = alias.partition("@")[0]
    left = answer(cli("schedules", "cancel", model, made["schedule_id"][:8], "-o", "json"))
    assert made["schedule_id"] not in {one["schedule_id"] for one in left}


def test_webhooks_are_found_by_prefixes(cli: Cli) -> None:
    hook = answer(cli("webhooks", "create", "https://hooks.example/x", "--model", f"m-{new_id()}", "-o", "json"))
    assert answer(cli("webhooks", "show", hook["webhook_id"][:8], "-o", "json"))["webhook_id"] == hook["webhook_id"]
    done(cli("webhooks", "delete", hook["webhook_id"][:8]))
    assert refused(cli("webhooks", "show", hook["webhook_id"])) == "WEBHOOK_NOT_FOUND"


def test_experiment_is_found_by_its_number(cli: Cli, sample: SampleData) -> None:
    number = answer(cli("experiments", "show", sample.experiment, "-o", "json"))["experiment_id"]
    for text in (number, f"id:{number}"):
        assert answer(cli("experiments", "show", text, "-o", "json"))["name"] == sample.experiment


@pytest.mark.parametrize(
    ("command", "reason", "near"),
    [
        ("models show MODELx", "MODEL_NOT_FOUND", "MODEL"),
        ("audit list --model MODELx", "MODEL_NOT_FOUND", "MODEL"),
        ("models delete UPPER", "MODEL_NOT_FOUND", "MODEL"),
        ("aliases get MODEL@champoin", "ALIAS_NOT_FOUND", "'champion'"),
        ("aliases get MODEL@Champion", "ALIAS_NOT_FOUND", "'champion'"),
        ("rollback MODEL@champoin", "ALIAS_NOT_FOUND", "'champion'"),
        ("runs list --experiment EXPERIMENTx", "EXPERIMENT_NOT_FOUND", "EXPERIMENT"),
        ("runs metrics RUN acuracy", "METRIC_NOT_FOUND", "'accuracy'"),
        ("download runs:/RUN/modle", "ARTIFACT_NOT_FOUND", "'model'"),
        ("artifacts list runs:/RUN/model --path weight.bin", "PATH_NOT_FOUND", "'weights.bin'"),
        ("rebuild registri", "PROJECTION_NOT_FOUND", "'registry'"),
        ("audit list --log registri", "UNKNOWN_LOG", "'registry'"),
    ],
)
def test_similar_name_is_suggested(command: str, reason: str, near: str, cli: Cli, sample: SampleData) -> None:
    names = {
        "MODEL": sample.model,
        "UPPER": sample.model.upper(),
        "EXPERIMENT": sample.experiment,
        "RUN": sample.runs[0],
    }

    def filled(text: str) -> str:
        for name, value in names.items():
            text = text.replace(name, value)
        return text

    done(cli("aliases", "move", f"{sample.model}@champion", "1"))
    result = cli(*filled(command).split())
    assert refused(result, 2 if reason == "UNKNOWN_LOG" else 1) == reason
    assert "did you mean" in result.stderr
    assert filled(near) in result.stderr


def test_no_suggestion_without_a_similar_name(cli: Cli) -> None:
    assert "did you mean" not in cli("models", "show", "zzzzzzzz").stderr
