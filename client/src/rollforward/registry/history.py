"""The history of aliases: their changes, their versions over time, and the origin of an assignment."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rollforward import v1
from rollforward._transport.connection import Connection
from rollforward._transport.default import default_client_function
from rollforward._transport.paging import collect
from rollforward.errors import InvalidRequest, NotFound
from rollforward.references import Past, as_of, just_after, parse_alias, parse_filter, timestamp
from rollforward.registry.assignments import Assignments
from rollforward.registry.versions import Versions
from rollforward.tracking.stored_runs import StoredRuns

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp

# Changes hold gate evidence: a thousand of them may not fit into one message.
_CHANGES_PER_PAGE = 200


class Blame(NamedTuple):
    """The origin of an alias's assignment."""

    alias: v1.Alias
    """The assignment."""
    change: v1.AliasChange
    """The change that made it: its actor, time, reason and gates."""
    version: v1.Version
    """The version that the alias points to."""
    run: v1.Run | None
    """The run that produced the version, if any."""


class AliasHistory(Assignments):
    """The recorded changes of aliases."""

    def history(
        self,
        reference: str = "",
        *,
        actor: str = "",
        moved: bool | None = None,
        cause: str = "",
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        limit: int | None = None,
    ) -> list[v1.AliasChange]:
        """List changes of aliases, newest first.

        Args:
            reference: "model@alias", "model" for all of its aliases, "@alias" for that alias of every model, or "" for
                all.
            actor: Only changes by this actor.
            moved: True for moves only, False for removals only.
            cause: Only changes by "request", "rollback", "schedule" or "expiry".
            since: Recorded then or later: an aware datetime or an RFC 3339 time.
            until: Recorded before then.
            limit: The maximum number; None for all.

        Raises:
            InvalidRequest: INVALID_REFERENCE, INVALID_CAUSE, INVALID_TIME.
            NotFound: MODEL_NOT_FOUND.
            PreconditionFailed: MODEL_RENAMED.
            Unavailable: No result within the timeout.
        """
        model, alias = parse_filter(reference)
        request = v1.ListAliasHistoryRequest(
            model=model,
            alias=alias,
            actor=actor,
            moved=moved,
            cause=alias_cause(cause),
            since=timestamp(since),
            until=timestamp(until),
        )
        return _changes(self._connection, request, limit)

    def intervals(
        self,
        reference: str,
        *,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        limit: int | None = None,
    ) -> list[v1.AliasInterval]:
        """List the versions that "model@alias" pointed to, each with its start and end, newest first.

        Only intervals that ended at `since` or later and began before `until`: aware datetimes or RFC 3339 times.
        `limit` None returns all.

        Raises:
            InvalidRequest: INVALID_REFERENCE, INVALID_TIME.
            NotFound: MODEL_NOT_FOUND; ALIAS_NOT_FOUND if it was never set.
            PreconditionFailed: MODEL_RENAMED.
            Unavailable: No result within the timeout.
        """
        model, alias = parse_alias(reference)
        query = v1.ListAliasIntervalsRequest(model=model, alias=alias, since=timestamp(since), until=timestamp(until))

        def fetch(size: int, token: str) -> tuple[Iterable[v1.AliasInterval], str]:
            query.page_size, query.page_token = size, token
            page = self._connection.call(self._connection.registry.ListAliasIntervals, query)
            return page.intervals, page.next_page_token

        return collect(fetch, limit, page=_CHANGES_PER_PAGE)

    def blame(self, reference: str, at: Past | None = None) -> Blame:
        """Return the origin of the assignment of "model@alias", now or at a point in the past.

        Raises as resolve.
        """
        alias = self.resolve(reference, at)
        change = _change_of(self._connection, alias)
        version = Versions(self._connection).get(alias.model, alias.version)
        run = StoredRuns(self._connection).get(version.run_id) if version.run_id else None
        return Blame(alias, change, version, run)

    def changes_at(self, revision: int) -> list[v1.AliasChange]:
        """List the changes of aliases in one append, in the order of the log.

        Raises:
            InvalidRequest: INVALID_REVISION, POSITION_AHEAD.
            NotFound: CHANGE_NOT_FOUND if no alias changed at that revision.
            Unavailable: No result within the timeout.
        """
        request = v1.ListAliasHistoryRequest(
            since=_time_of(self._connection, revision - 1), until=_time_after(self._connection, revision)
        )
        changes = [change for change in _changes(self._connection, request, None) if change.revision == revision]
        if not changes:
            message = f"no alias changed at revision {revision}"
            raise NotFound("CHANGE_NOT_FOUND", message, {"revision": str(revision)})
        return changes[::-1]


def alias_cause(name: str) -> v1.AliasCause.ValueType:
    """Return the cause with a name, or ALIAS_CAUSE_UNSPECIFIED for "".

    Raises:
        InvalidRequest: INVALID_CAUSE.
    """
    if not name:
        return v1.ALIAS_CAUSE_UNSPECIFIED
    try:
        return v1.AliasCause.Value(f"ALIAS_CAUSE_{name.upper()}")
    except ValueError as error:
        message = f"invalid cause {name!r}: expected request, rollback, schedule or expiry"
        raise InvalidRequest("INVALID_CAUSE", message, {"cause": name}) from error


def _change_of(connection: Connection, alias: v1.Alias) -> v1.AliasChange:
    request = v1.ListAliasHistoryRequest(
        model=alias.model, alias=alias.alias, since=alias.moved_at, until=just_after(alias.moved_at)
    )
    return next(change for change in _changes(connection, request, None) if change.revision == alias.revision)


def _time_of(connection: Connection, position: int) -> Timestamp:
    request = v1.ResolveAliasesRequest(at=as_of(position, connection.epoch("registry")), page_size=1)
    return connection.call(connection.registry.ResolveAliases, request).time


def _time_after(connection: Connection, position: int) -> Timestamp | None:
    # Each event of an append has its own time, but none is later than the next append's.
    try:
        return just_after(_time_of(connection, position + 1))
    except InvalidRequest as error:
        if error.reason != "POSITION_AHEAD":
            raise
        return None


def _changes(connection: Connection, query: v1.ListAliasHistoryRequest, limit: int | None) -> list[v1.AliasChange]:
    def fetch(size: int, token: str) -> tuple[Iterable[v1.AliasChange], str]:
        query.page_size, query.page_token = size, token
        page = connection.call(connection.registry.ListAliasHistory, query)
        return page.changes, page.next_page_token

    return collect(fetch, limit, page=_CHANGES_PER_PAGE)


alias_history = default_client_function("alias_history", AliasHistory, AliasHistory.history)
alias_intervals = default_client_function("alias_intervals", AliasHistory, AliasHistory.intervals)
blame = default_client_function("blame", AliasHistory, AliasHistory.blame)
changes_at = default_client_function("changes_at", AliasHistory, AliasHistory.changes_at)
