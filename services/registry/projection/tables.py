"""The tables of the registry's rows. Times are nanoseconds since 1970."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from services.sql.columns import TEXT

tables = sa.MetaData()


def _number(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=null)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, TEXT, nullable=False)


def _key(name: str, kind: Any = TEXT) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


models = sa.Table(
    "models",
    tables,
    _key("origin"),
    sa.Column("name", TEXT, nullable=False, unique=True),
    _text("description"),
    _text("gate"),
    _number("latest_version"),
    _text("actor"),
    _number("created_at"),
    _number("created"),  # the position of its creation
    _number("updated_at"),
    _number("deleted_at", null=True),
    _number("revision"),
    _number("stream_revision"),  # what an append to its stream expects
)

names = sa.Table("names", tables, _key("name"), _text("origin"), _number("position"), sa.Index("names_of", "origin"))

# No index of values: PostgreSQL refuses a row whose key in an index is longer than a third of a page.
model_tags = sa.Table(
    "model_tags", tables, _key("origin"), _key("key"), _text("value"), sa.Index("model_tags_by_key", "key")
)

versions = sa.Table(
    "versions",
    tables,
    _key("origin"),
    _key("version", sa.BigInteger),
    _text("digest"),
    _text("run_id"),
    _text("description"),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("registered", sa.LargeBinary, nullable=False),  # a Version with what never changes
    _number("created_at"),
    _number("updated_at"),
    _number("deleted_at", null=True),
    _number("revision"),  # the position of its registration
    _number("changed"),  # the end of the last append about it
    sa.Index("versions_by_revision", "revision"),
    sa.Index("versions_by_run", "run_id"),
)

version_tags = sa.Table(
    "version_tags",
    tables,
    _key("origin"),
    _key("version", sa.BigInteger),
    _key("key"),
    _text("value"),
    sa.Index("version_tags_by_key", "key"),
)

aliases = sa.Table(
    "aliases",
    tables,
    _key("origin"),
    _key("alias"),
    _number("version"),  # 0 when it was removed
    _number("revision"),
    _number("position"),
    _number("expires_at", null=True),
    sa.Index("aliases_by_expiry", "expires_at"),
)

alias_changes = sa.Table(
    "alias_changes",
    tables,
    _key("position", sa.BigInteger),
    _number("revision"),
    _text("origin"),
    _text("alias"),
    _number("time"),
    _text("actor"),
    _number("from_version"),
    _number("to_version"),
    sa.Column("cause", sa.Integer, nullable=False),
    _text("event_id"),
    sa.Column("change", sa.LargeBinary, nullable=False),
    sa.Index("alias_changes_by_id", "event_id"),
    sa.Index("alias_changes_by_alias", "origin", "alias", "position"),
    sa.Index("alias_changes_by_actor", "actor", "position"),
    sa.Index("alias_changes_by_time", "time"),
)

schedules = sa.Table(
    "schedules",
    tables,
    _key("schedule_id"),
    _text("event_id"),
    _text("origin"),
    _text("alias"),
    _number("version"),
    _number("at"),
    _number("expected_revision", null=True),
    _text("actor"),
    _text("reason"),
    _number("created_at"),
    _number("revision"),
    sa.Index("schedules_by_time", "at"),
)

policies_table = sa.Table(
    "policies",
    tables,
    _key("name"),
    sa.Column("policy", sa.LargeBinary),  # NULL when it was removed
    _number("revision"),
)

# Of all events but those in alias_changes.
event_ids = sa.Table(
    "event_ids",
    tables,
    _key("position", sa.BigInteger),
    _text("event_id"),
    _number("revision"),
    sa.Index("event_ids_by_id", "event_id"),
)
