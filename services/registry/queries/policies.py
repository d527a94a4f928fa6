"""The query of the current policies."""

from __future__ import annotations

import sqlalchemy as sa

from rollforward import v1
from services.registry.projection.tables import (
    policies_table,
)


def policies(connection: sa.Connection) -> v1.ListPoliciesResponse:
    """Return all policies by name, and their revision."""
    rows = connection.execute(sa.select(policies_table).order_by(policies_table.c.name)).all()
    return v1.ListPoliciesResponse(
        policies=[v1.Policy.FromString(row.policy) for row in rows if row.policy is not None],
        revision=max((row.revision for row in rows), default=0),
    )
