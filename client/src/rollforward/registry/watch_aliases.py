"""Watches of aliases: every change once, in order, across lost connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.connection import Connection
from rollforward._transport.default import default_client_function
from rollforward._transport.resource import Resource
from rollforward._transport.resumable_stream import ResumableStream
from rollforward.references import AliasReference, parse_filter, revision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rollforward._transport.channel import ResponseStream


class AliasWatcher(Resource):
    """Watches of aliases."""

    def watch(
        self,
        reference: str = "",
        *,
        from_revision: int | None = None,
        epoch: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Watch:
        """Watch "model@alias", all aliases of "model", "@alias" of every model, or with "" all aliases.

        `for change in watch(...)` returns each change once, in order.

        Args:
            reference: The aliases to watch.
            from_revision: Start after this revision. By default the watch starts now, and `aliases` has the current
                assignments.
            epoch: The registry log's epoch when you read the revision, if not by this connection.
            tags: Only watch models that have all of these tags at the revision of the change.

        Raises:
            InvalidRequest: INVALID_REFERENCE, INVALID_REVISION, POSITION_AHEAD.
            Conflict: LOG_EPOCH_CHANGED.
            Unavailable: No response at all.
        """
        named = parse_filter(reference)
        return Watch(self._connection, named, revision(from_revision, "from_revision"), tags, epoch)


class Watch(ResumableStream[v1.WatchAliasesResponse, v1.AliasChange]):
    """An endless iterator over alias changes; its `position` is a `from_revision`. See ResumableStream."""

    def __init__(
        self,
        connection: Connection,
        reference: AliasReference,
        from_revision: int | None,
        tags: Mapping[str, str] | None = None,
        epoch: int | None = None,
    ) -> None:
        self.aliases: tuple[v1.Alias, ...] = ()
        """The assignments when the watch started, or restarted in another epoch; empty with `from_revision`."""
        self._reference = reference
        self._tags = dict(tags or {})
        super().__init__(connection, "registry", from_revision, epoch)

    def _open(self, position: int | None) -> ResponseStream[v1.WatchAliasesResponse]:
        if position is None:
            self.aliases = ()
        model, alias = self._reference
        request = v1.WatchAliasesRequest(
            model=model,
            alias=alias,
            from_revision=position,
            tags=self._tags,
            several_appends=True,
            epoch=self.epoch,
        )
        return self._connection.registry.WatchAliases(request, metadata=self._connection.metadata())

    def _take_snapshot(self, step: v1.WatchAliasesResponse) -> bool:
        self.aliases += tuple(step.snapshot.aliases)
        return step.snapshot.continues

    def _changes_of(self, step: v1.WatchAliasesResponse) -> Iterator[tuple[int, v1.AliasChange]]:
        appends = step.appends.appends if step.HasField("appends") else (step.changes,)
        return ((change.revision, change) for append in appends for change in append.changes)


watch = default_client_function("watch", AliasWatcher, AliasWatcher.watch)
