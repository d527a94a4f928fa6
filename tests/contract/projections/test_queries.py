"""Queries that bypass SQLAlchemy: same results, one consistent snapshot, and the same errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
import sqlalchemy as sa

from eventstore.projections.database import Database, is_refusal
from eventstore.projections.generation import Generation
from eventstore.projections.generations import Generations
from eventstore.projections.statements import Query, fetch_all, fetch_each
from tests.contract.projections.notes import Notes, notes

tables = sa.MetaData()

items = sa.Table(
    "items",
    tables,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("text", sa.Text),
    sa.Column("body", sa.LargeBinary),
    sa.Column("double", sa.Double),
    sa.Column("small", sa.Integer),
    sa.Column("flag", sa.Boolean),
)

ITEMS = (
    (2**63 - 1, "é%\n\U0001f600 ", bytes(range(256)), 0.1, 2**31 - 1, True),
    (-(2**63), "", b"", float("inf"), -(2**31), False),
    (0, None, None, None, None, None),
    (7, "seven", b"7", -5e-324, 7, True),
)

ALL = sa.select(items).order_by(items.c.id)
ONE = sa.select(items.c.text, sa.literal("100%")).where(items.c.id == sa.bindparam("id"), items.c.text != "")
INVALID = sa.select(sa.table("nothing", sa.column("it")))
NOTED = sa.select(notes.c.stream, notes.c.count)


class Items(Notes):
    tables = tables


@pytest.fixture
def generation(location: str) -> Iterator[Generation]:
    with closing(Generations(Items(), Database(location)).create_live()) as rows:
        with rows.writing() as connection:
            connection.execute(sa.insert(items), [dict(zip(items.c.keys(), item, strict=True)) for item in ITEMS])
        yield rows


def test_results_equal_stored_rows(generation: Generation) -> None:
    with generation.transaction() as connection:
        assert fetch_all(connection, ALL) == sorted(ITEMS)
        assert fetch_all(connection, ONE, id=7) == [("seven", "100%")]
        assert fetch_all(connection, ONE, id=8) == []
        with fetch_each(connection, [ONE, ALL, ONE, ONE], id=7) as results:
            assert list(results) == [[("seven", "100%")], sorted(ITEMS), *[[("seven", "100%")]] * 2]
        with fetch_each(connection, []) as results:
            assert list(results) == []
        assert connection.scalar(sa.select(sa.func.count()).select_from(items)) == len(ITEMS)


def test_all_results_are_of_one_snapshot(location: str) -> None:
    with closing(Generations(Notes(), Database(location)).create_live()) as rows, rows.transaction() as reading:
        with fetch_each(reading, [NOTED] * 3) as results:
            assert next(results) == []
            with rows.writing() as writing:
                writing.execute(sa.insert(notes).values(stream="a", text="", count=1, position=1))
            assert list(results) == [[], []]
        assert fetch_all(reading, NOTED) == []
        with rows.transaction() as later:
            assert fetch_all(later, NOTED) == [("a", 1)]


@pytest.mark.parametrize("at", range(3))
def test_invalid_query_is_refused(generation: Generation, at: int) -> None:
    queries: list[Query] = [ALL, ALL]
    queries.insert(at, INVALID)
    with (
        pytest.raises(sa.exc.DBAPIError) as caught,
        generation.transaction() as failed,
        fetch_each(failed, queries) as results,
    ):
        list(results)
    assert is_refusal(caught.value)
    with generation.transaction() as connection:
        assert fetch_all(connection, ALL) == sorted(ITEMS)


def test_error_in_caller_leaves_connection_usable(generation: Generation) -> None:
    with generation.transaction() as connection:
        with pytest.raises(ZeroDivisionError), fetch_each(connection, [ALL, ALL, ALL]) as results:
            assert len(next(results)) / 0
        assert fetch_all(connection, ALL) == sorted(ITEMS)


def test_closed_connection_is_temporary_and_replaced(postgres_url: str) -> None:
    with closing(Generations(Notes(), Database(postgres_url)).create_live()) as rows:
        with pytest.raises(sa.exc.DBAPIError) as caught:
            _close_connections_during_query(rows, postgres_url)
        assert not is_refusal(caught.value)
        with rows.transaction() as connection:
            assert fetch_all(connection, NOTED) == []


def test_idle_connections_that_were_closed_are_replaced(postgres_url: str) -> None:
    with closing(Generations(Notes(), Database(postgres_url)).create_live()) as rows:
        for _ in range(3):
            with rows.transaction() as connection, rows.transaction() as another:
                assert fetch_all(connection, NOTED) == fetch_all(another, NOTED) == []
            _close_connections(postgres_url)


def _close_connections_during_query(generation: Generation, postgres_url: str) -> None:
    with generation.transaction() as connection, fetch_each(connection, [NOTED] * 3) as results:
        next(results)
        _close_connections(postgres_url)
        list(results)


def _close_connections(postgres_url: str) -> None:
    """Close all connections to a database, as a restart of the server does."""
    url = sa.make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ended = connection.execute(f"SELECT pg_terminate_backend(pid, 10000) {others}").fetchall()
    assert ended
    assert all(done for (done,) in ended)
