"""Whether a database says no, so that its rows can go no further, or is only away or busy for a while."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from eventstore.projections.database import is_refusal
from tests.servers.ports import free_port


def refused(engine: sa.Engine, *statements: str) -> bool:
    """Whether the last of these statements, which fails, is refused for good."""
    with engine.connect() as connection:
        for statement in statements[:-1]:
            connection.exec_driver_sql(statement)
        with pytest.raises(sa.exc.DBAPIError) as caught:
            connection.exec_driver_sql(statements[-1])
    return is_refusal(caught.value)


@pytest.fixture
def sqlite(tmp_path: Path) -> sa.Engine:
    return sa.create_engine(f"sqlite:///{tmp_path}/rows.db", connect_args={"timeout": 0})


def test_what_makes_no_sense_is_refused(sqlite: sa.Engine) -> None:
    assert refused(sqlite, "SELECT * FROM nothing")
    assert refused(
        sqlite, "CREATE TABLE t (k INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)"
    )


def test_a_database_that_is_busy_is_not_for_ever(sqlite: sa.Engine) -> None:
    with sqlite.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        assert not refused(sqlite, "BEGIN IMMEDIATE")


def test_nor_is_one_whose_disk_is_full(sqlite: sa.Engine) -> None:
    filled = ["CREATE TABLE t (k BLOB)", "PRAGMA max_page_count = 3", "INSERT INTO t VALUES (zeroblob(1000000))"]
    assert not refused(sqlite, *filled)


def test_nor_one_that_is_away() -> None:
    engine = sa.create_engine(f"postgresql+psycopg://127.0.0.1:{free_port()}/rows")
    with pytest.raises(sa.exc.OperationalError) as caught:
        engine.connect()
    assert not is_refusal(caught.value)
