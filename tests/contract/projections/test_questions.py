"""Questions past SQLAlchemy: answered as it answers them, of one moment, and refused or cut off as its own are."""

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

things = sa.Table(
    "things",
    tables,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("text", sa.Text),
    sa.Column("body", sa.LargeBinary),
    sa.Column("double", sa.Double),
    sa.Column("small", sa.Integer),
    sa.Column("flag", sa.Boolean),
)

THINGS = (
    (2**63 - 1, "é%\n\U0001f600 ", bytes(range(256)), 0.1, 2**31 - 1, True),
    (-(2**63), "", b"", float("inf"), -(2**31), False),
    (0, None, None, None, None, None),
    (7, "seven", b"7", -5e-324, 7, True),
)

ALL = sa.select(things).order_by(things.c.id)
ONE = sa.select(things.c.text, sa.literal("100%")).where(things.c.id == sa.bindparam("id"), things.c.text != "")
NOTHING = sa.select(sa.table("nothing", sa.column("it")))
NOTED = sa.select(notes.c.stream, notes.c.count)


class Things(Notes):
    tables = tables


@pytest.fixture
def generation(location: str) -> Iterator[Generation]:
    with closing(Generations(Things(), Database(location)).create_live()) as rows:
        with rows.writing() as connection:
            connection.execute(sa.insert(things), [dict(zip(things.c.keys(), one, strict=True)) for one in THINGS])
        yield rows


def test_what_is_answered_is_what_is_there(generation: Generation) -> None:
    with generation.transaction() as connection:
        assert fetch_all(connection, ALL) == sorted(THINGS)
        assert fetch_all(connection, ONE, id=7) == [("seven", "100%")]
        assert fetch_all(connection, ONE, id=8) == []
        with fetch_each(connection, [ONE, ALL, ONE, ONE], id=7) as found:
            assert list(found) == [[("seven", "100%")], sorted(THINGS), *[[("seven", "100%")]] * 2]
        with fetch_each(connection, []) as found:
            assert list(found) == []
        assert connection.scalar(sa.select(sa.func.count()).select_from(things)) == len(THINGS)


def test_all_answers_are_of_one_moment(location: str) -> None:
    with closing(Generations(Notes(), Database(location)).create_live()) as rows, rows.transaction() as reading:
        with fetch_each(reading, [NOTED] * 3) as found:
            assert next(found) == []
            with rows.writing() as writing:
                writing.execute(sa.insert(notes).values(stream="a", text="", count=1, position=1))
            assert list(found) == [[], []]
        assert fetch_all(reading, NOTED) == []
        with rows.transaction() as later:
            assert fetch_all(later, NOTED) == [("a", 1)]


@pytest.mark.parametrize("at", range(3))
def test_what_makes_no_sense_is_refused(generation: Generation, at: int) -> None:
    asked: list[Query] = [ALL, ALL]
    asked.insert(at, NOTHING)
    with pytest.raises(sa.exc.DBAPIError) as caught, generation.transaction() as some, fetch_each(some, asked) as found:
        list(found)
    assert is_refusal(caught.value)
    with generation.transaction() as connection:
        assert fetch_all(connection, ALL) == sorted(THINGS)


def test_an_error_of_who_asks_leaves_the_connection_as_it_was(generation: Generation) -> None:
    with generation.transaction() as connection:
        with pytest.raises(ZeroDivisionError), fetch_each(connection, [ALL, ALL, ALL]) as found:
            assert len(next(found)) / 0
        assert fetch_all(connection, ALL) == sorted(THINGS)


def test_a_connection_that_is_cut_is_no_refusal_and_the_next_one_answers(postgres_url: str) -> None:
    with closing(Generations(Notes(), Database(postgres_url)).create_live()) as rows:
        with pytest.raises(sa.exc.DBAPIError) as caught:
            _cut_while_asking(rows, postgres_url)
        assert not is_refusal(caught.value)
        with rows.transaction() as connection:
            assert fetch_all(connection, NOTED) == []


def test_connections_that_were_cut_while_nobody_asked_are_made_anew(postgres_url: str) -> None:
    with closing(Generations(Notes(), Database(postgres_url)).create_live()) as rows:
        for _ in range(3):
            with rows.transaction() as connection, rows.transaction() as another:
                assert fetch_all(connection, NOTED) == fetch_all(another, NOTED) == []
            _cut(postgres_url)


def _cut_while_asking(generation: Generation, postgres_url: str) -> None:
    with generation.transaction() as connection, fetch_each(connection, [NOTED] * 3) as found:
        next(found)
        _cut(postgres_url)
        list(found)


def _cut(postgres_url: str) -> None:
    """Ends all connections to a database, as a restart of the server does."""
    url = sa.make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ended = connection.execute(f"SELECT pg_terminate_backend(pid, 10000) {others}").fetchall()
    assert ended
    assert all(done for (done,) in ended)
