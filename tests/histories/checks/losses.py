"""The checks of logs that lost events, and of the epochs after them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.histories.checks.rules import Rule, Violation
from tests.histories.recorded.recording import History
from tests.histories.recorded.subjects import Loss

CHANGED = "LOG_EPOCH_CHANGED"


def check_losses(history: History) -> Iterator[Violation]:
    """Check what the services did about each loss."""
    for loss in history.losses:
        if not loss.refused or loss.reason != "LOG_LOST" or not loss.kept_rows:
            yield Violation(Rule.LOSS_IS_REFUSED, f"{loss}")
        if loss.refused:
            yield from _check_accepted(loss) if loss.accepted else _check_put_back(loss)


def _check_put_back(loss: Loss) -> Iterator[Violation]:
    """Check that the restored log has everything acknowledged, in the same epoch."""
    if loss.steps["revision after it was put back"] != loss.steps["revision before"]:
        yield Violation(Rule.ACKNOWLEDGED_IS_WRITTEN, f"{loss}")
    if loss.steps["watched"] != "True":
        yield Violation(Rule.WATCH_COMES_THROUGH, f"{loss}")


def _check_accepted(loss: Loss) -> Iterator[Violation]:
    """Check that one new epoch began: old positions are rejected, and watches of the SDK restart."""
    if loss.steps["epochs begun"] != "1":
        yield Violation(Rule.EPOCH_IS_NEW, f"{loss}")
    old = [reason for step, reason in loss.steps.items() if step.startswith("old")]
    if any(reason != CHANGED for reason in old):
        yield Violation(Rule.EPOCH_IS_NEW, f"{loss}")
    if loss.steps["watched"] != "True":
        yield Violation(Rule.WATCH_COMES_THROUGH, f"{loss}")
