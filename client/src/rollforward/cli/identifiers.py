"""Lookup of items by a prefix of their id, or by their name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

import rollforward as rf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rollforward import v1

_ID: Final = re.compile(r"[0-9a-f]{32}")
_PREFIX: Final = re.compile(r"[0-9a-f]{4,31}")
# The number of candidates in the error for an ambiguous prefix.
_CANDIDATES: Final = 5

_T = TypeVar("_T")


def run_id(text: str) -> str:
    """Return the id of the run with an id, a unique prefix of an id (four digits or more), or a unique name.

    Raises:
        NotFound: RUN_NOT_FOUND.
        InvalidRequest: AMBIGUOUS_ID.
    """
    return text if _ID.fullmatch(text) else rf.find_run(text).run_id


def run_ids(texts: Sequence[str]) -> list[str]:
    """Return the ids of runs, each found as by `run_id`."""
    return [run_id(text) for text in texts]


def logged_model_id(text: str) -> str:
    """Return the id of the logged model with an id, or a unique prefix of an id.

    Raises:
        NotFound: LOGGED_MODEL_NOT_FOUND.
        InvalidRequest: AMBIGUOUS_ID.
    """
    bare = text.removeprefix("m-")
    if not _PREFIX.fullmatch(bare):
        return text
    models = rf.search_logged_models(filter=f"model_id LIKE 'm-{bare}%'", lifecycle="all", limit=_CANDIDATES + 1)
    return _unique(text, models, lambda model: model.model_id) or text


def webhook_id(text: str) -> str:
    """Return the id of the webhook with an id, or a unique prefix of an id."""
    if not _PREFIX.fullmatch(text):
        return text
    webhooks = [hook for hook in rf.list_webhooks() if hook.webhook_id.startswith(text)]
    return _unique(text, webhooks, lambda hook: hook.webhook_id) or text


def schedule_id(model: str, text: str) -> str:
    """Return the id of a model's schedule with an id, or a unique prefix of an id."""
    if not _PREFIX.fullmatch(text):
        return text
    schedules = [schedule for schedule in rf.list_schedules(model) if schedule.schedule_id.startswith(text)]
    return _unique(text, schedules, lambda schedule: schedule.schedule_id) or text


def experiment_named(text: str) -> v1.Experiment:
    """Return the experiment with a name, with "id:NUMBER", or with a number that is no experiment's name.

    Raises:
        NotFound: EXPERIMENT_NOT_FOUND.
    """
    if text.startswith("id:"):
        return rf.get_experiment(experiment_id=text.removeprefix("id:"))
    try:
        return rf.get_experiment(text)
    except rf.NotFound:
        if not (text.isascii() and text.isdecimal()):
            raise
        return rf.get_experiment(experiment_id=text)


def experiment_names(experiment_ids: Sequence[str]) -> dict[str, str]:
    """Return the names of experiments by their ids."""
    unique_ids = sorted(set(experiment_ids))
    if not unique_ids:
        return {}
    quoted = ", ".join(f"'{experiment_id}'" for experiment_id in unique_ids)
    experiments = rf.list_experiments(filter=f"experiment_id IN ({quoted})", lifecycle="all")
    return {experiment.experiment_id: experiment.name for experiment in experiments}


def _unique(text: str, candidates: Sequence[_T], id_of: Callable[[_T], str]) -> str | None:
    ids = [id_of(candidate) for candidate in candidates]
    if len(ids) > 1:
        shown = ", ".join(ids[:_CANDIDATES])
        raise rf.InvalidRequest(
            "AMBIGUOUS_ID", f"ambiguous id {text!r}: it matches {shown}. Use a longer prefix", {"candidates": shown}
        )
    return ids[0] if ids else None
