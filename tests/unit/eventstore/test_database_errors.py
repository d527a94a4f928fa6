"""Database errors: which are permanent refusals, and which pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from eventstore.projections.database import is_refusal
from tests.servers.ports import free_port


def is_refused(engine: sa.Engine, *statements: str) -> bool:
    """Run statements of which the last fails; return whether its error is permanent."""
    with engine.connect() as connection:
        for statement in statements[:-1]:
            connection.exec_driver_sql(statement)
        with pytest.raises(sa.exc.DBAPIError) as caught:
            connection.exec_driver_sql(statements[-1])
    return is_refusal(caught.value)


@pytest.fixture
def sqlite(tmp_path: Path) -> sa.Engine:
    return sa.create_engine(f"sqlite:///{tmp_path}/rows.db", connect_args={"timeout": 0})


def test_invalid_statement_is_refused(sqlite: sa.Engine) -> None:
    assert is_refused(sqlite, "SELECT * FROM nothing")
    assert is_refused(
        sqlite, "CREATE TABLE t (k INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)"
    )


def test_busy_database_is_temporary(sqlite: sa.Engine) -> None:
    with sqlite.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        assert not is_refused(sqlite, "BEGIN IMMEDIATE")


def test_full_disk_is_temporary(sqlite: sa.Engine) -> None:
    statements = ["CREATE TABLE t (k BLOB)", "PRAGMA max_page_count = 3", "INSERT INTO t VALUES (zeroblob(1000000))"]
    assert not is_refused(sqlite, *statements)


def test_unreachable_database_is_temporary() -> None:
    engine = sa.create_engine(f"postgresql+psycopg://127.0.0.1:{free_port()}/rows")
    with pytest.raises(sa.exc.OperationalError) as caught:
        engine.connect()
    assert not is_refusal(caught.value)
