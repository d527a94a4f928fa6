"""The commands for experiments, runs and logged models, against the services as `up` runs them."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rollforward as rf
from rollforward import v1
from tests.e2e.program import until
from tests.integration.cli.command_line import SCRIPT, SECONDS, Cli, SampleData, answer, done, environment, refused
from tests.integration.up import Up, new_id

POINTS = 200


@dataclass(frozen=True)
class Training:
    """An experiment with three different runs, and a logged model of the first."""

    experiment: str
    runs: tuple[str, str, str]
    model_id: str


@pytest.fixture(scope="module")
def client(system: Up) -> Iterator[rf.Client]:
    """Return a client of the SDK."""
    with rf.Client(system.address, actor="Zoë") as connection:
        yield connection


@pytest.fixture(scope="module")
def training(client: rf.Client) -> Training:
    """Log the runs with the SDK."""
    experiment = f"experiment-{new_id()}"
    ids = []
    for number, name in enumerate(("first", "second", "third")):
        with client.runs.start(experiment, name=name) as run:
            run.log_params({"depth": number, "seed": 7})
            for step in range(POINTS):
                run.log_metric("loss", 1 / (1 + step + number), step, timestamp=step * 1_000)
            if number:
                run.log_metric("auc", 0.9 + number / 100)
        ids.append(run.run_id)
    client.runs.log_input(ids[0], v1.Dataset(name="payments", digest="d1"), context="training")
    model_id = client.logged_models.create(experiment, "trees", model_type="sklearn", run=ids[0], params={"depth": 0})
    client.runs.log_output(ids[0], model_id, 3)
    client.logged_models.finalize(model_id)
    return Training(experiment, (ids[0], ids[1], ids[2]), model_id)


def ids_of(found: list[dict[str, Any]], key: str = "run_id") -> list[str]:
    """Return the ids in a list of runs or logged models."""
    return [one[key] for one in found]


def test_experiment_can_be_created_changed_deleted_and_restored(cli: Cli) -> None:
    name, other = f"e-{new_id()}", f"f-{new_id()}"
    made = answer(cli("experiments", "create", name, "--tag", "team=risk", "--tag", "tier=1", "-o", "json"))
    assert (made["name"], made["tags"]) == (name, {"team": "risk", "tier": "1"})
    assert refused(cli("experiments", "create", name)) == "EXPERIMENT_EXISTS"
    assert answer(cli("experiments", "tag", name, "tier=2", "-o", "json"))["tags"] == {"team": "risk", "tier": "2"}
    assert answer(cli("experiments", "untag", name, "tier", "-o", "json"))["tags"] == {"team": "risk"}
    assert answer(cli("experiments", "rename", name, other, "--reason", "why", "-o", "json"))["name"] == other
    assert refused(cli("experiments", "show", name)) == "EXPERIMENT_NOT_FOUND"
    by_id = f"id:{made['experiment_id']}"
    assert answer(cli("experiments", "delete", other, "-o", "json"))["deleted"]
    assert refused(cli("experiments", "tag", by_id, "a=b")) == "EXPERIMENT_DELETED"
    listed = ("experiments", "list", "--filter", f"name = '{other}'", "-o", "json")
    assert answer(cli(*listed)) == []
    assert ids_of(answer(cli(*listed, "--all")), "name") == [other]
    assert f"{other} (deleted)" in done(cli("experiments", "list", "--all", "--limit", "1000"))
    assert not answer(cli("experiments", "restore", by_id, "-o", "json"))["deleted"]
    assert re.search(rf"experiment +{other}\n", done(cli("experiments", "show", other)))
    assert refused(cli("experiments", "list", "--filter", "nonsense"), 2) == "INVALID_FILTER"
    assert refused(cli("experiments", "tag", other, "team"), 2) == ""


def test_experiment_is_shown_with_its_runs(cli: Cli, training: Training) -> None:
    shown = answer(cli("experiments", "show", training.experiment, "-o", "json"))
    assert ids_of(shown["runs"]) == list(reversed(training.runs))
    assert len(answer(cli("experiments", "show", training.experiment, "--limit", "1", "-o", "json"))["runs"]) == 1
    assert training.runs[2][:12] in done(cli("experiments", "show", training.experiment))


def test_runs_are_found_by_filter_and_order(cli: Cli, training: Training) -> None:
    of = ("runs", "list", "--experiment", training.experiment, "-o", "json")
    first, second, third = training.runs
    assert ids_of(answer(cli(*of, "--filter", "metrics.auc > 0.915"))) == [third]
    assert ids_of(answer(cli(*of, "--filter", "params.depth IN ('0', '1')"))) == [second, first]
    assert ids_of(answer(cli(*of, "--order-by", "metrics.auc DESC"))) == [third, second, first]
    both = ("runs", "list", "--experiment", training.experiment, "--experiment", "id:99999")
    assert refused(cli(*both)) == "EXPERIMENT_NOT_FOUND"
    assert refused(cli(*of, "--order-by", "whatever.x"), 2) == "INVALID_ORDER"


def test_run_can_be_changed_deleted_and_restored(cli: Cli, client: rf.Client) -> None:
    with client.runs.start(f"e-{new_id()}", name="before") as run:
        pass
    change = ("-o", "json")
    assert answer(cli("runs", "rename", run.run_id, "after", *change))["name"] == "after"
    assert answer(cli("runs", "describe", run.run_id, "What for", *change))["description"] == "What for"
    assert answer(cli("runs", "tag", run.run_id, "a=1", "b=2", *change))["tags"] == {"a": "1", "b": "2"}
    assert answer(cli("runs", "untag", run.run_id, "a", *change))["tags"] == {"b": "2"}
    assert answer(cli("runs", "delete", run.run_id, *change))["deleted"]
    assert refused(cli("runs", "rename", run.run_id, "again")) == "RUN_DELETED"
    assert "after (deleted)" in done(cli("runs", "show", run.run_id))
    assert not answer(cli("runs", "restore", run.run_id, *change))["deleted"]
    assert refused(cli("runs", "tag", run.run_id, "../a=1"), 2) == "INVALID_KEY"


def test_a_run_shows_its_datasets_and_logged_models(cli: Cli, training: Training) -> None:
    text = done(cli("runs", "show", training.runs[0]))
    assert re.search(r"payments +d1 +training", text)
    assert re.search(rf"{training.model_id} +3\n", text)


def test_runs_are_compared_as_a_table(cli: Cli, training: Training) -> None:
    text = done(cli("runs", "compare", *training.runs))
    assert re.search(r"^ +first +second +third$", text, re.MULTILINE)
    assert re.search(r"^depth +0 +1 +2$", text, re.MULTILINE)
    assert not re.search(r"^seed", text, re.MULTILINE)
    assert re.search(r"^auc +- +0\.91 +0\.92$", text, re.MULTILINE)
    assert re.search(r"^loss +0\.005 \(0\.005 to 1\) ", text, re.MULTILINE)
    assert re.search(r"^seed +7 +7 +7$", done(cli("runs", "compare", *training.runs, "--equal")), re.MULTILINE)


def test_comparison_of_no_runs_says_so(cli: Cli, training: Training) -> None:
    nobody = ("--experiment", training.experiment, "--filter", "metrics.auc > 1")
    assert done(cli("runs", "compare", *nobody)) == "no runs match\n"
    assert answer(cli("runs", "compare", *nobody, "-o", "json"))["runs"] == []
    assert done(cli("runs", "compare", *nobody, "--csv")) == "run_id\n"


def test_runs_are_compared_as_json(cli: Cli, training: Training) -> None:
    found = answer(cli("runs", "compare", *training.runs, "-o", "json"))
    assert found["runs"] == list(training.runs)
    assert found["params"] == [{"key": "depth", "values": ["0", "1", "2"]}]
    assert {one["key"] for one in found["attributes"]} >= {"name", "status", "started_at", "duration_seconds"}
    auc, loss = found["metrics"]
    assert (auc["key"], auc["summaries"][0], auc["summaries"][2]["last"]) == ("auc", None, 0.92)
    assert [one["count"] for one in loss["summaries"]] == [POINTS] * 3


def test_runs_are_compared_as_csv(cli: Cli, training: Training) -> None:
    searched = ("--experiment", training.experiment, "--order-by", "params.depth ASC", "--filter", "params.seed = '7'")
    rows = list(csv.DictReader(io.StringIO(done(cli("runs", "compare", *searched, "--csv")))))
    assert tuple(row["run_id"] for row in rows) == training.runs
    assert [row["params.depth"] for row in rows] == ["0", "1", "2"]
    assert [row["metrics.auc.last"] for row in rows] == ["", "0.91", "0.92"]
    assert [float(row["metrics.loss.max"]) for row in rows] == [1.0, 0.5, 1 / 3]


@pytest.mark.parametrize(
    ("arguments", "reason", "code"),
    [
        ("runs compare", "", 2),
        ("runs compare RUN --experiment X", "", 2),
        ("runs compare RUN RUN --csv -o json", "", 2),
        ("runs compare RUN ffffffffffffffffffffffffffffffff", "RUN_NOT_FOUND", 1),
        ("runs compare RUN no-id", "RUN_NOT_FOUND", 1),
        ("runs metrics RUN nothing", "METRIC_NOT_FOUND", 1),
        ("runs metrics RUN nothing --csv", "METRIC_NOT_FOUND", 1),
        ("runs metrics RUN loss --csv -o json", "", 2),
        ("runs metrics RUN loss --intervals 100001", "INVALID_INTERVALS", 2),
        ("runs metrics RUN loss --intervals 0", "", 2),
        ("runs metrics RUN loss --intervals -1", "", 2),
        ("runs untag RUN", "", 2),
        ("runs tag RUN", "", 2),
        ("sync --watch --every 0", "", 2),
        ("runs watch", "", 2),
        ("runs watch RUN --experiment X", "", 2),
        ("runs watch ffffffffffffffffffffffffffffffff", "RUN_NOT_FOUND", 1),
        ("runs watch RUN --after 99999999", "POSITION_AHEAD", 1),
        ("logged-models show m-ffffffffffffffffffffffffffffffff", "LOGGED_MODEL_NOT_FOUND", 1),
    ],
)
def test_rejected_tracking_commands_have_a_reason(
    arguments: str, reason: str, code: int, cli: Cli, training: Training
) -> None:
    assert refused(cli(*arguments.replace("RUN", training.runs[0]).split()), code) == reason


def test_metric_is_drawn_as_a_chart(cli: Cli, training: Training) -> None:
    lines = done(cli("runs", "metrics", training.runs[0], "loss", "--intervals", "50")).splitlines()
    assert lines[0] == f"loss: last 0.005 at step {POINTS - 1}, min 0.005, max 1, {POINTS} points"
    assert lines[1].startswith("    1 ┤")
    assert lines[-2].startswith("0.005 ┤")
    assert lines[-2].endswith("•")
    assert re.fullmatch(rf" +0 +{POINTS - 1}", lines[-1])
    over_time = done(cli("runs", "metrics", training.runs[0], "loss", "--axis", "time", "--intervals", "50"))
    assert "1970-01-01T00:00:00Z" in over_time


def test_metric_is_printed_as_json_and_csv(cli: Cli, training: Training) -> None:
    found = answer(cli("runs", "metrics", training.runs[0], "loss", "--intervals", "10", "-o", "json"))
    assert (found["run_id"], found["start"], found["end"]) == (training.runs[0], 0, POINTS - 1)
    assert (found["numbers"], sum(found["counts"])) == (list(range(10)), POINTS)
    assert (max(found["max"]), min(found["min"])) == (1.0, 1 / POINTS)
    rows = list(csv.reader(io.StringIO(done(cli("runs", "metrics", training.runs[0], "loss", "--csv")))))
    assert rows[0] == ["step", "time", "value"]
    assert [(int(step), float(value)) for step, _, value in rows[1:]] == [
        (step, 1 / (1 + step)) for step in range(POINTS)
    ]
    assert rows[2][1] == "1970-01-01T00:00:01.000Z"


def test_logged_models_can_be_listed_tagged_deleted_and_restored(cli: Cli, training: Training) -> None:
    of = ("logged-models", "list", "--experiment", training.experiment)
    (listed,) = answer(cli(*of, "--filter", "name = 'trees'", "-o", "json"))
    assert (listed["model_id"], listed["status"]) == (training.model_id, "ready")
    assert re.search(rf"{training.model_id[:14]} +trees +sklearn +ready", done(cli(*of)))
    model = ("logged-models", "show", training.model_id)
    assert re.search(r"param +depth +0\n", done(cli(*model)))
    assert answer(cli("logged-models", "tag", training.model_id, "a=1", "-o", "json"))["tags"] == {"a": "1"}
    assert answer(cli("logged-models", "untag", training.model_id, "a", "-o", "json"))["tags"] == {}
    assert answer(cli("logged-models", "delete", training.model_id, "-o", "json"))["deleted"]
    assert answer(cli(*of, "-o", "json")) == []
    assert ids_of(answer(cli(*of, "--all", "-o", "json")), "model_id") == [training.model_id]
    assert not answer(cli("logged-models", "restore", training.model_id, "-o", "json"))["deleted"]


def test_watch_of_an_ended_run_ends_at_once(cli: Cli, training: Training, client: rf.Client) -> None:
    assert f"{training.runs[0]} first is finished" in done(cli("runs", "watch", training.runs[0]))
    failing = client.runs.start(training.experiment, name="failing")
    failing.finish("FAILED")
    result = cli("runs", "watch", failing.run_id, "-o", "json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["snapshot"]["status"] == "failed"


def test_sync_sends_to_the_jobs_address_or_the_given_one(
    cli: Cli, system: Up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLFORWARD_JOURNAL", str(tmp_path))
    with (
        rf.Client("127.0.0.1:1", actor="Zoë") as nowhere,
        nowhere.runs.start(f"e-{new_id()}", offline=True) as run,
    ):
        pass
    arguments = ("sync", str(tmp_path), "-o", "json")
    waiting = cli(*arguments, "--timeout", "0.3")
    assert (waiting.returncode, json.loads(waiting.stdout)[0]["state"]) == (1, "undelivered")
    (sent,) = answer(cli(*arguments, "--server", system.address))
    assert (sent["run_id"], sent["state"]) == (run.run_id, "delivered")


@contextmanager
def watching(system: Up, *arguments: str, **how: Any) -> Iterator[subprocess.Popen[str]]:
    """Run the `runs watch` command in the background."""
    variables = environment(ROLLFORWARD_URI=system.address)
    with subprocess.Popen([SCRIPT, "runs", "watch", *arguments], env=variables, text=True, **how) as process:
        try:
            yield process
        finally:
            process.kill()


def test_watch_of_a_run_ends_with_the_run(system: Up, client: rf.Client) -> None:
    run = client.runs.start(f"e-{new_id()}", name="live")
    with watching(system, run.run_id, "-o", "json", stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["snapshot"]["run_id"] == run.run_id
        run.log_metric("loss", 0.5, 3, timestamp=17)
        run.flush()
        run.finish()
        output, _ = process.communicate(timeout=SECONDS)
        changes = [json.loads(line)["change"] for line in output.splitlines()]
        assert changes[0]["metrics"] == {"loss": {"steps": [3], "times": ["1970-01-01T00:00:00.017Z"], "values": [0.5]}}
        assert changes[-1]["finished"]["status"] == "finished"
        assert process.returncode == 0


class Terminal:
    """A terminal that shows a command's output."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self.shown = b""

    def await_text(self, text: bytes) -> None:
        """Wait until the terminal has shown a text."""

        def is_there() -> bool:
            self.shown += os.read(self._ours, 65536)
            return text in self.shown

        until(is_there, text.decode())

    def close(self) -> None:
        os.close(self.theirs)
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    opened.close()


def test_watch_redraws_a_table_on_a_terminal(system: Up, client: rf.Client, terminal: Terminal) -> None:
    run = client.runs.start(f"e-{new_id()}", name="live")
    theirs = terminal.theirs
    with watching(system, run.run_id, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        terminal.await_text(b"running")
        run.log_metric("loss", 0.125)
        run.flush()
        terminal.await_text(b"0.125")
        run.finish()
        terminal.await_text(b"finished")
        assert process.wait(SECONDS) == 0


def test_watch_after_a_position_prints_lines_on_a_terminal(system: Up, client: rf.Client, terminal: Terminal) -> None:
    run = client.runs.start(f"e-{new_id()}", name="live")
    arguments = (run.run_id, "--after", str(system.heads()["tracking"]))
    with watching(system, *arguments, stdin=terminal.theirs, stdout=terminal.theirs, stderr=terminal.theirs) as process:
        run.log_metric("loss", 0.125)
        run.flush()
        terminal.await_text(b"loss=0.125 at step 0")
        run.finish()
        terminal.await_text(b"finished")
        assert process.wait(SECONDS) == 0


def test_watch_of_an_experiment_prints_a_line_per_event(system: Up, client: rf.Client, sample: SampleData) -> None:
    position = system.heads()["tracking"]
    with watching(
        system, "--experiment", sample.experiment, "--after", str(position), "--no-metrics", stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        with client.runs.start(sample.experiment, name="another") as run:
            run.log_metric("loss", 0.5)
            run.log_params({"depth": 3})
        lines = [process.stdout.readline() for _ in range(3)]
    assert [line.split("  ", 3)[3] for line in lines] == ["started by Zoë\n", "depth=3\n", "finished\n"]
    assert all(f"{run.run_id} another" in line for line in lines)
