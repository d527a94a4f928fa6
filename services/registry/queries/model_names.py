"""Models by name, and tags and former names by origin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

import sqlalchemy as sa

from services.registry.deciders.preconditions import model_not_found, renamed
from services.registry.projection.tables import model_tags, models, names

_CALLED = (
    sa.select(models.c.origin, models.c.name)
    .join(names, names.c.origin == models.c.origin)
    .where(names.c.name == sa.bindparam("called"))
)


def origin_ever_called(connection: sa.Connection, name: str) -> str | None:
    """Return the origin of the model that is or was called so, None when there never was one."""
    origin: str | None = connection.scalar(_CALLED, {"called": name})
    return origin


def name_now(connection: sa.Connection, name: str) -> str | None:
    """Return the name of the model that is or was called so, None when there never was one."""
    row = connection.execute(_CALLED, {"called": name}).first()
    return row.name if row else None


def get_origin(connection: sa.Connection, name: str) -> str:
    """Return the origin of the model that is called so. Raises `Rejected` MODEL_NOT_FOUND or MODEL_RENAMED."""
    row = connection.execute(_CALLED, {"called": name}).first()
    if row is None:
        raise model_not_found(name)
    if row.name != name:
        raise renamed(name, row.name)
    return str(row.origin)


def tags_of_models(connection: sa.Connection, origins: Collection[str]) -> Mapping[str, Mapping[str, str]]:
    """Return the tags of models by origin."""
    tags: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for row in connection.execute(sa.select(model_tags).where(model_tags.c.origin.in_(origins))):
        tags[row.origin][row.key] = row.value
    return tags


def former_names(connection: sa.Connection, origins: Collection[str]) -> Mapping[str, list[str]]:
    """Return the former names of models by origin, oldest first."""
    former: defaultdict[str, list[str]] = defaultdict(list)
    statement = sa.select(names.c.origin, names.c.name).join(models, models.c.origin == names.c.origin)
    statement = statement.where(names.c.origin.in_(origins), names.c.name != models.c.name)
    for row in connection.execute(statement.order_by(names.c.position)):
        former[row.origin].append(row.name)
    return former
