"""The commands for models, versions, policies, gates and recorded events."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli.command_line import Cli, SampleData, answer, done, refused
from tests.integration.up import Up, new_id


@pytest.fixture
def other(system: Up) -> str:
    """Create a model with two versions."""
    return system.new_model()


@pytest.fixture
def policy(cli: Cli) -> Iterator[str]:
    """Return the name of a policy, which is removed after the test."""
    name = f"policy-{new_id()[:8]}"
    yield name
    if name in done(cli("policies", "list")):
        done(cli("policies", "remove", name))


def test_renamed_model_keeps_its_content_and_the_old_name_shows_the_new_one(cli: Cli, other: str) -> None:
    done(cli("aliases", "move", f"{other}@champion", "2"))
    name = f"{other}-renamed"
    shown = answer(cli("models", "rename", other, name, "--reason", "clearer", "-o", "json"))
    assert (shown["name"], shown["former_names"], shown["latest_version"]) == (name, [other], 2)
    assert answer(cli("aliases", "get", f"{name}@champion", "-o", "json"))["version"] == 2
    assert len(answer(cli("aliases", "history", name, "-o", "json"))) == 1
    result = cli("aliases", "get", f"{other}@champion")
    assert refused(result) == "MODEL_RENAMED"
    assert name in result.stderr
    assert re.search(rf"^formerly +{other}$", done(cli("models", "show", name)), re.MULTILINE)


def test_models_can_be_described_tagged_and_found_by_tags(cli: Cli, other: str) -> None:
    assert answer(cli("models", "describe", other, "Scores é", "-o", "json"))["description"] == "Scores é"
    team = f"team-{new_id()}"
    tagged = answer(cli("models", "tag", other, f"team={team}", "tier=1=x", "-o", "json"))
    assert tagged["tags"] == {"team": team, "tier": "1=x"}
    where = ("models", "list", "--filter", f"name LIKE 'model-%' AND tags.team = '{team}'")
    assert [one["name"] for one in answer(cli(*where, "-o", "json"))] == [other]
    assert f"team={team}" in done(cli(*where))
    assert answer(cli("models", "untag", other, "tier", "nothing", "-o", "json"))["tags"] == {"team": team}
    assert refused(cli("models", "list", "--filter", "name ~ 'x'"), 2) == "INVALID_FILTER"
    assert refused(cli("models", "list", "--order-by", "colour"), 2) == "INVALID_ORDER"
    newest = answer(cli("models", "list", "--order-by", "updated DESC", "--limit", "1", "-o", "json"))
    assert [one["name"] for one in newest] == [other]


def test_model_or_version_with_an_alias_cannot_be_deleted(cli: Cli, other: str) -> None:
    done(cli("aliases", "move", f"{other}@champion", "1"))
    refusals = {"MODEL_IN_USE": ("models", "delete", other), "VERSION_IN_USE": ("versions", "delete", other, "1")}
    for reason, arguments in refusals.items():
        result = cli(*arguments)
        assert refused(result) == reason
        assert "champion" in result.stderr


def test_model_can_be_deleted_and_restored(cli: Cli, other: str) -> None:
    assert answer(cli("models", "delete", other, "-o", "json"))["deleted_at"] is not None
    where = ("models", "list", "--filter", f"name = '{other}'", "-o", "json")
    assert answer(cli(*where)) == []
    assert [one["name"] for one in answer(cli(*where, "--all"))] == [other]
    result = cli("aliases", "move", f"{other}@champion", "1")
    assert refused(result) == "MODEL_DELETED"
    assert "models restore" in result.stderr
    assert answer(cli("models", "restore", other, "-o", "json"))["deleted_at"] is None
    done(cli("aliases", "move", f"{other}@champion", "1"))


def test_deleted_version_can_be_restored_and_keeps_its_number(cli: Cli, other: str, sample: SampleData) -> None:
    assert re.search(r"^status +deleted$", done(cli("versions", "delete", other, "v2")), re.MULTILINE)
    listed = ("versions", "list", other, "-o", "json")
    assert [one["version"] for one in answer(cli(*listed))] == [1]
    assert [one["version"] for one in answer(cli(*listed, "--all"))] == [2, 1]
    assert answer(cli("models", "register", other, str(sample.files), "-o", "json"))["version"] == 3
    assert refused(cli("aliases", "move", f"{other}@champion", "2")) == "VERSION_DELETED"
    assert answer(cli("versions", "restore", other, "2", "-o", "json"))["deleted_at"] is None
    assert [one["version"] for one in answer(cli(*listed))] == [3, 2, 1]


def test_version_can_be_described_tagged_and_given_a_status(cli: Cli, other: str) -> None:
    assert answer(cli("versions", "describe", other, "v1", "the first", "-o", "json"))["description"] == "the first"
    assert answer(cli("versions", "tag", other, "1", "approved=yes", "-o", "json"))["tags"] == {"approved": "yes"}
    where = ("versions", "list", "--filter", f"tags.approved = 'yes' AND name = '{other}'")
    assert [one["version"] for one in answer(cli(*where, "-o", "json"))] == [1]
    assert f"{other} v1" in done(cli(*where))
    assert answer(cli("versions", "untag", other, "1", "approved", "-o", "json"))["tags"] == {}
    failed = answer(cli("versions", "set-status", other, "1", "failed", "--reason", "damaged", "-o", "json"))
    assert failed["status"] == "failed"
    assert refused(cli("aliases", "move", f"{other}@champion", "1")) == "VERSION_NOT_READY"
    done(cli("versions", "set-status", other, "1", "ready"))
    done(cli("aliases", "move", f"{other}@champion", "1"))
    assert re.search(r"^aliases +@champion$", done(cli("versions", "show", other, "1")), re.MULTILINE)


def test_copied_version_keeps_its_lineage(cli: Cli, sample: SampleData) -> None:
    target = f"copy-{new_id()}"
    copied = answer(cli("versions", "copy", sample.model, "v2", target, "--reason", "approved", "-o", "json"))
    assert (copied["model"], copied["version"]) == (target, 1)
    assert (copied["copied_from"]["model"], copied["copied_from"]["version"]) == (sample.model, 2)
    original = answer(cli("versions", "show", sample.model, "2", "-o", "json"))
    assert copied["digest"] == original["digest"]
    assert re.search(rf"^copy of +{sample.model} v2$", done(cli("versions", "show", target, "1")), re.MULTILINE)


def test_protected_alias_requires_a_reason(cli: Cli, other: str, policy: str) -> None:
    arguments = (
        "policies",
        "protect",
        policy,
        "--model",
        other,
        "--alias",
        "prod-*",
        "--reason",
        "audit",
        "-o",
        "json",
    )
    assert answer(cli(*arguments))["reason_required"]
    result = cli("aliases", "move", f"{other}@prod-eu", "1")
    assert refused(result) == "REASON_REQUIRED"
    assert policy in result.stderr
    assert "--reason" in result.stderr
    done(cli("aliases", "move", f"{other}@prod-eu", "1", "--reason", "because"))
    done(cli("aliases", "move", f"{other}@staging", "1"))
    listed = {one["name"]: one["aliases"] for one in answer(cli("policies", "list", "-o", "json"))}
    assert listed[policy] == "prod-*"
    assert policy not in done(cli("policies", "remove", policy))
    done(cli("aliases", "move", f"{other}@prod-eu", "2"))
    assert refused(cli("policies", "remove", policy)) == "POLICY_NOT_FOUND"


def test_failed_gate_for_moves_shows_its_values(cli: Cli, sample: SampleData, policy: str) -> None:
    alias = f"{sample.model}@gated-{new_id()[:8]}"
    gate = "candidate.metrics.accuracy >= current.metrics.accuracy"
    done(cli("aliases", "move", alias, "2"))
    done(cli("policies", "set", policy, "--model", sample.model, "--alias", "gated-*", "--gate", gate))
    result = cli("aliases", "move", alias, "1")
    assert refused(result) == "GATE_FAILED"
    assert gate in result.stderr
    assert re.search(r"candidate v1 accuracy=0\.96.*current v2 accuracy=0\.99", result.stderr), result.stderr
    assert f"policy {policy} " in result.stderr
    (refusal,) = answer(cli("audit", "list", "--type", "AliasMoveRefused", "--model", sample.model, "-o", "json"))
    assert refusal["data"]["to_version"] == 1


def test_gate_can_be_evaluated_on_versions_and_past_moves(cli: Cli, sample: SampleData, alias: str) -> None:
    over = "run.metrics.accuracy > 0.97"
    found = answer(cli("gates", "test", over, sample.model, "-o", "json"))
    assert [(one["run"]["run_id"], one["passed"]) for one in found] == [
        (sample.runs[1], True),
        (sample.runs[0], False),
    ]
    assert [one["passed"] for one in answer(cli("gates", "test", over, sample.model, "v1", "-o", "json"))] == [False]
    assert re.search(r"^v1 +refused.* accuracy=0\.96$", done(cli("gates", "test", over, sample.model)), re.MULTILINE)
    for version in ("2", "1"):
        done(cli("aliases", "move", alias, version))
    gate = "candidate.metrics.accuracy > 0.97"
    label = alias.partition("@")[2]
    moves = answer(cli("gates", "replay", gate, "--model", sample.model, "--alias", label, "-o", "json"))
    assert [(one["to_version"], one["evidence"]["passed"]) for one in moves] == [(2, True), (1, False)]
    assert "refused" in done(cli("gates", "replay", gate, "--alias", label, "--since", moves[1]["time"]))
    assert refused(cli("gates", "test", "run.", sample.model), 2) == "INVALID_GATE"
    assert refused(cli("gates", "test", over, sample.model, "9")) == "VERSION_NOT_FOUND"


def test_listed_events_meet_all_conditions(cli: Cli, alias: str, sample: SampleData) -> None:
    request_id = new_id()
    done(cli("aliases", "move", alias, "1", "--request-id", request_id, "--reason", "audited", "--actor", "Zoë"))
    where = ["audit", "list", "--log", "registry", "--type", "AliasMoved", "--stream", f"model/{sample.model}"]
    where += ["--actor", "Zoë", "--request-id", request_id]
    (event,) = answer(cli(*where, "-o", "json"))
    assert (event["reason"], event["data"]["to_version"]) == ("audited", 1)
    assert event["data"]["@type"].endswith("/rollforward.v1.AliasMoved")
    assert "audited" in done(cli(*where))
    assert answer(cli(*where, "--until", event["time"], "-o", "json")) == []
    assert answer(cli(*where, "--since", event["time"], "-o", "json")) == [event]
    assert len(answer(cli("audit", "list", "--limit", "2", "-o", "json"))) == 2


def test_events_are_filtered_by_model_alias_and_cause(cli: Cli, other: str) -> None:
    for version in ("1", "2"):
        done(cli("aliases", "move", f"{other}@champion", version))
    done(cli("aliases", "move", f"{other}@staging", "1"))
    done(cli("rollback", f"{other}@champion"))
    done(cli("models", "rename", other, f"{other}-renamed"))

    def types(*where: str) -> list[str]:
        found = answer(cli("audit", "list", *where, "-o", "json"))
        return [one["type"].rpartition(".")[2] for one in found]

    moved = ["AliasMoved"]
    assert types("--model", f"{other}-renamed", "--alias", "champion") == moved * 3
    assert types("--model", other, "--cause", "rollback") == moved
    assert types("--model", other, "--alias", "staging") == moved
    assert "ModelRenamed" in types("--model", other)


def test_export_has_every_event_once_in_order(cli: Cli, other: str, tmp_path: Path) -> None:
    for version in ("1", "2", "1"):
        done(cli("aliases", "move", f"{other}@champion", version, "--reason", "=1+1"))
    where = ("audit", "export", "--model", other)
    events = [json.loads(line) for line in done(cli(*where)).splitlines()]
    listed = answer(cli("audit", "list", "--model", other, "-o", "json"))
    assert [one["id"] for one in events] == [one["event_id"] for one in reversed(listed)]
    assert {one["specversion"] for one in events} == {"1.0"}
    assert [one["data"]["to_version"] for one in events[-3:]] == [1, 2, 1]
    target = tmp_path / "events.csv"
    written = answer(cli(*where, "--format", "csv", "--file", str(target), "-o", "json"))
    assert written == {"file": str(target), "events": len(events)}
    rows = list(csv.DictReader(io.StringIO(target.read_bytes().decode(), newline="")))
    assert [row["event_id"] for row in rows] == [one["id"] for one in events]
    assert rows[-1]["reason"] == "'=1+1"
    assert [one.name for one in tmp_path.iterdir()] == ["events.csv"]


def test_full_export_goes_log_by_log(cli: Cli) -> None:
    events = [json.loads(line) for line in done(cli("audit", "export")).splitlines()]
    sources = [one["source"] for one in events]
    assert len(dict.fromkeys(sources)) == len([1 for a, b in zip(["", *sources], sources, strict=False) if a != b]) > 1
    for source in set(sources):
        positions = [int(one["position"]) for one in events if one["source"] == source]
        assert positions == sorted(set(positions))


def test_rejected_export_leaves_no_file(cli: Cli, tmp_path: Path) -> None:
    result = cli("audit", "export", "--log", "nothing", "--file", str(tmp_path / "events.jsonl"))
    assert refused(result, 2) == "UNKNOWN_LOG"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [("models", "tag", "m"), ("models", "untag", "m"), ("versions", "tag", "m", "1"), ("versions", "untag", "m", "1")],
)
def test_tag_command_without_tags_is_a_usage_error(cli: Cli, arguments: tuple[str, ...]) -> None:
    refused(cli(*arguments), 2)
