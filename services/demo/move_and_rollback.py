"""Steps 5 and 6: move the alias under load and back, then account for all of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from rollforward import v1
from services.demo.console import check, code, command, payloads, say, step, working
from services.demo.load_generator import CONNECTIONS, PER_SECOND, ROWS, Answer, Load, turns
from services.demo.train_and_serve import CHAMPION, MODEL, Stage

SETTLED = 40  # answers in a row on each connection before the next act


def move(stage: Stage) -> str:
    """Step 5: @champion moves and is rolled back while predictions are asked for all the time."""
    step(5, "Move the champion under load, and roll it back")
    old, new = (f"v{version.version}" for version in (stage.versions[0], stage.versions[-1]))
    say(
        f"{CONNECTIONS} clients ask for {CONNECTIONS * PER_SECOND} predictions a second, "
        f"each of {ROWS} held-out rows (Open Inference Protocol)."
    )
    with Load(stage.endpoint, MODEL, stage.data.test_rows, stage.data.test_labels) as load:
        _settle(stage, load, old)
        there = _move(stage)
        _settle(stage, load, new)
        back = _roll_back(stage)
        _settle(stage, load, old)
    answers = load.all_answers
    failures = [answer.failure for answer in answers if answer.failure]
    stage.children.check()
    check(not failures, f"{len(failures)} requests failed; the first with {''.join(failures[:1])}")
    _show_answers(load)
    orders = [[turn.version for turn in turns([each])] for each in load.answers]
    check(all(order == [old, new, old] for order in orders), f"the versions took turns in another order: {orders}")
    say("On no connection did an old version answer after a newer one had taken over.")
    swapped, restored = (f"{1000 * _seconds(answers, *act):.0f} ms" for act in ((there, new), (back, old)))
    say(f"From the move to the first answer by {new}: {swapped}; from the rollback to {old}: {restored}.")
    return f"{len(answers)} requests, 0 failed; {old} -> {new} in {swapped}, back in {restored}"


def _settle(stage: Stage, load: Load, version: str) -> None:
    with working(f"waiting until every client has {SETTLED} answers by {version} ..."):
        stage.children.wait_for(f"answers by {version}", lambda: load.has_settled(version, SETTLED) or None, 30)


def _move(stage: Stage) -> float:
    best = stage.versions[-1]
    seen = stage.client.aliases.resolve(CHAMPION).revision
    reason = "beats the champion on the held-out rows"
    began = time.perf_counter()
    stage.client.aliases.move(CHAMPION, best, reason=reason, expected_revision=seen)
    code(f'rf.move_alias("{CHAMPION}", {best.version}, reason="{reason}", expected_revision={seen})')
    return began


def _roll_back(stage: Stage) -> float:
    reason = "a drill: what if it had been worse?"
    began = time.perf_counter()
    back = stage.client.aliases.rollback(CHAMPION, reason=reason)
    code(f'rf.rollback("{CHAMPION}", reason="{reason}")')
    led_to = [change.to_version for change in back.changes]
    check(led_to == [stage.versions[0].version], f"the rollback led to {led_to}")
    return began


def _show_answers(load: Load) -> None:
    rows = [(turn.version, str(turn.requests), "0", f"{turn.share_right:.1%}") for turn in turns(load.answers)]
    payloads(("ANSWERED BY", "REQUESTS>", "FAILED>", "ROWS RIGHT>"), rows)


def _seconds(answers: list[Answer], since: float, version: str) -> float:
    return next(answer.received for answer in answers if answer.received > since and answer.version == version) - since


def look_back(stage: Stage) -> str:
    """Step 6: who did what when and why, the past as it was, and the proof that the log is all there is."""
    step(6, "Look back: history, the past, and the proof")
    command("aliases", "history", CHAMPION, "--limit", "3")
    back, there = stage.client.aliases.history(CHAMPION, limit=2)
    check(back.cause == v1.ALIAS_CAUSE_ROLLBACK, "the last change is no rollback")
    check((there.to_version, back.to_version) == (back.from_version, there.from_version), "it did not restore")
    between = datetime.fromtimestamp((_time(there) + _time(back)) / 2, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    say("\nWhich version was live between the two?")
    command("aliases", "get", CHAMPION, "--at", between)
    then = stage.client.aliases.resolve(CHAMPION, between).version
    check(then == there.to_version, f"in between it was v{there.to_version}, not v{then}")
    return _rebuild(stage)


def _time(change: v1.AliasChange) -> float:
    return change.time.seconds + change.time.nanos / 1e9


def _rebuild(stage: Stage) -> str:
    say("\nEvery table is computed from the log. Compute each again, beside the live one, and compare:")
    rows = list(_rebuilt(stage))
    payloads(("READ MODEL", "POSITION>", "LIVE ROWS", "REBUILT ROWS", "EQUAL"), rows)
    check(bool(rows) and all(row[-1] == "yes" for row in rows), "a read model differs from its log")
    return f"{len(rows)} read models equal to their rebuild"


def _rebuilt(stage: Stage) -> Iterator[tuple[str, ...]]:
    for projection in stage.client.system.status().projections:
        *_, last = stage.client.system.rebuild(projection.name)
        digests = (last.live_digest, last.rebuilt_digest)
        same = last.done and bool(digests[0]) and digests[0] == digests[1]
        yield (projection.name, str(last.position), digests[0][:16], digests[1][:16], "yes" if same else "NO")
