"""Differences of aliases between two points in time, of two versions, and of one move."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rollforward import v1
from rollforward._artifacts.trees import ArtifactTrees
from rollforward._transport.connection import Connection
from rollforward._transport.default import default_client_function
from rollforward._transport.resource import Resource
from rollforward.errors import PreconditionFailed
from rollforward.registry.assignments import Assignments
from rollforward.registry.history import AliasHistory
from rollforward.registry.models import Models
from rollforward.registry.versions import Versions
from rollforward.tracking.stored_runs import StoredRuns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rollforward.references import Past

Value = str | int | float | None


class AssignmentDifference(NamedTuple):
    """An alias that points to different versions at two points in time; None where it is not set."""

    model: str
    alias: str
    before: v1.Alias | None
    after: v1.Alias | None


class AliasesDifference(NamedTuple):
    """The differences of assignments between two points in time."""

    before: v1.ResolveAliasesResponse
    after: v1.ResolveAliasesResponse
    differences: tuple[AssignmentDifference, ...]
    """Sorted by model and alias."""


class Difference(NamedTuple):
    """A difference between two versions; None where a version lacks the item."""

    kind: str
    """"digest", "size" (bytes), "run", "param", "metric" (its last value), "tag" (of the version) or "file" (its
    digest)."""
    key: str
    """The parameter, metric, tag or path; empty for the other kinds."""
    before: Value
    after: Value


class VersionsDifference(NamedTuple):
    """The differences of two versions."""

    before: v1.Version | None
    """None if the alias was not set before."""
    after: v1.Version | None
    """None if the alias was removed."""
    differences: tuple[Difference, ...]
    """Sorted by kind and key."""


class MoveDifference(NamedTuple):
    """The differences between the two versions of one move."""

    change: v1.AliasChange
    versions: VersionsDifference


class Differences(Resource):
    """Comparisons of aliases at two points in time, of versions, and of moves."""

    def aliases(self, model: str = "", before: Past | None = None, after: Past | None = None) -> AliasesDifference:
        """Compare the assignments of a model's aliases, or with "" of all models, at two points in time.

        A point is a revision, an aware datetime or an RFC 3339 time; None is now. An alias that was moved away and back
        does not differ. Raises as resolve_all.
        """
        first, second = (Assignments(self._connection).resolve_all(model, point) for point in (before, after))
        before_by_name, after_by_name = _by_name(first), _by_name(second)
        differences = tuple(
            AssignmentDifference(*name, before_by_name.get(name), after_by_name.get(name))
            for name in sorted(before_by_name.keys() | after_by_name.keys())
            if _version_of(before_by_name.get(name)) != _version_of(after_by_name.get(name))
        )
        return AliasesDifference(first, second, differences)

    def versions(self, model: str, before: int, after: int) -> VersionsDifference:
        """Compare two versions of a model: files, size, tags, and their runs' parameters and metrics.

        Raises as get_version, get_run and get_manifest.
        """
        return _diff(self._connection, model, before, after)

    def move(self, revision: int) -> list[MoveDifference]:
        """Compare the two versions of each alias that was moved at a revision.

        Raises as changes_at and diff_versions.
        """
        return [
            MoveDifference(
                change,
                _diff(
                    self._connection, _name_now(self._connection, change.model), change.from_version, change.to_version
                ),
            )
            for change in AliasHistory(self._connection).changes_at(revision)
        ]


def _name_now(connection: Connection, name_then: str) -> str:
    try:
        return Models(connection).get(name_then).name
    except PreconditionFailed as error:
        if error.reason != "MODEL_RENAMED":
            raise
        return error.metadata["renamed_to"]


def _diff(connection: Connection, model: str, before: int, after: int) -> VersionsDifference:
    versions = [Versions(connection).get(model, number) if number else None for number in (before, after)]
    fields = [{} if version is None else dict(_fields_of(connection, version)) for version in versions]
    keys = sorted(fields[0].keys() | fields[1].keys(), key=lambda key: (_KINDS.index(key[0]), key[1]))
    differences = tuple(
        Difference(*key, fields[0].get(key), fields[1].get(key))
        for key in keys
        # Compared by repr, because NaN is not equal to itself.
        if repr(fields[0].get(key)) != repr(fields[1].get(key))
    )
    return VersionsDifference(versions[0], versions[1], differences)


_KINDS = ("digest", "size", "run", "param", "metric", "tag", "file")


def _fields_of(connection: Connection, version: v1.Version) -> Iterator[tuple[tuple[str, str], Value]]:
    yield ("digest", ""), version.digest
    manifest = ArtifactTrees(connection).get_manifest(version.digest)
    yield ("size", ""), sum(file.size_bytes for file in manifest.files)
    yield from _of("file", {file.path: file.digest for file in manifest.files})
    yield from _of("tag", version.tags)
    if version.run_id:
        yield ("run", ""), version.run_id
        run = StoredRuns(connection).get(version.run_id)
        yield from _of("param", run.params)
        yield from _of("metric", {key: summary.last for key, summary in run.metrics.items()})


def _of(kind: str, values: Mapping[str, str] | Mapping[str, float]) -> Iterator[tuple[tuple[str, str], Value]]:
    for key, value in values.items():
        yield (kind, key), value


def _by_name(resolved: v1.ResolveAliasesResponse) -> dict[tuple[str, str], v1.Alias]:
    return {(alias.model, alias.alias): alias for alias in resolved.aliases}


def _version_of(alias: v1.Alias | None) -> int:
    return 0 if alias is None else alias.version


diff_aliases = default_client_function("diff_aliases", Differences, Differences.aliases)
diff_versions = default_client_function("diff_versions", Differences, Differences.versions)
diff_move = default_client_function("diff_move", Differences, Differences.move)
