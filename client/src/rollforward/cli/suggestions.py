"""Suggestions of similar names when a name is not found."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

import rollforward as rf
from rollforward.errors import RollforwardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_SUGGESTIONS: Final = 3
_CUTOFF: Final = 0.6
_LISTED: Final = 1000


def near_names(error: RollforwardError) -> list[str]:
    """Return names similar to the one that was not found, the most similar first."""
    if error.reason not in _LOOKUPS:
        return []
    key, lookup = _LOOKUPS[error.reason]
    missing = error.metadata.get(key, "")
    if not missing:
        return []
    try:
        names = list(lookup(error.metadata))
    except RollforwardError:
        # The original error is reported anyway, without suggestions.
        return []
    folded = {name.casefold(): name for name in names if name != missing}
    near = difflib.get_close_matches(missing.casefold(), folded, _SUGGESTIONS, _CUTOFF)
    return [repr(folded[name]) for name in near]


def _models(_metadata: Mapping[str, str]) -> Iterable[str]:
    return (model.name for model in rf.list_models(limit=_LISTED))


def _aliases(metadata: Mapping[str, str]) -> Iterable[str]:
    return (alias.alias for alias in rf.get_model(metadata["model"]).aliases)


def _experiments(_metadata: Mapping[str, str]) -> Iterable[str]:
    return (experiment.name for experiment in rf.list_experiments(limit=_LISTED))


def _metrics(metadata: Mapping[str, str]) -> Iterable[str]:
    return rf.get_run(metadata["run_id"]).metrics


def _artifacts(metadata: Mapping[str, str]) -> Iterable[str]:
    return (artifact.path for artifact in rf.get_run(metadata["run_id"]).artifacts)


def _files(metadata: Mapping[str, str]) -> Iterable[str]:
    return (file.path for file in rf.list_files(metadata["digest"]))


def _policies(_metadata: Mapping[str, str]) -> Iterable[str]:
    return (policy.name for policy in rf.list_policies())


def _projections(_metadata: Mapping[str, str]) -> Iterable[str]:
    return (projection.name for projection in rf.status().projections)


def _logs(_metadata: Mapping[str, str]) -> Iterable[str]:
    return (log.name for log in rf.status().logs)


# By reason, the metadata key of the name that was not found, and a function that lists existing names.
_LOOKUPS: Final[Mapping[str, tuple[str, Callable[[Mapping[str, str]], Iterable[str]]]]] = {
    "MODEL_NOT_FOUND": ("model", _models),
    "ALIAS_NOT_FOUND": ("alias", _aliases),
    "EXPERIMENT_NOT_FOUND": ("experiment", _experiments),
    "METRIC_NOT_FOUND": ("key", _metrics),
    "ARTIFACT_NOT_FOUND": ("path", _artifacts),
    "PATH_NOT_FOUND": ("path", _files),
    "POLICY_NOT_FOUND": ("policy", _policies),
    "PROJECTION_NOT_FOUND": ("projection", _projections),
    "UNKNOWN_LOG": ("log", _logs),
}
