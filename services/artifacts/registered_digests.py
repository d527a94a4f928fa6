"""Which artifacts something names: every version ever registered, every artifact of a run or a logged model."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from eventstore import RecordedEvent
from rollforward import v1

tables = sa.MetaData()

artifacts = sa.Table("artifacts", tables, sa.Column("digest", sa.Text, primary_key=True))


class NamedArtifactsProjection:
    """The digests of all versions that were ever registered: a deleted version can be restored, or rolled back to."""

    name = "named-artifacts"
    version = 1
    tables = tables

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Write the digests that events of the registry log name."""
        named = {event.data.digest for event in events if isinstance(event.data, v1.VersionRegistered)}
        if named:
            known = set(connection.scalars(sa.select(artifacts.c.digest).where(artifacts.c.digest.in_(named))))
            if new := sorted(named - known):
                connection.execute(sa.insert(artifacts), [{"digest": digest} for digest in new])
