"""Every type of column and every index comes back from a snapshot as it was."""

from __future__ import annotations

import sqlalchemy as sa

from eventstore.projections.database import Database
from eventstore.projections.generations import Generations
from eventstore.projections.snapshots.store import Snapshots
from services.artifacts.objects import ObjectPlace
from tests.contract.projections.notes import Notes

everything = sa.MetaData()

things = sa.Table(
    "things",
    everything,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("text", sa.Text),
    sa.Column("values", sa.LargeBinary),
    sa.Column("double", sa.Double),
    sa.Column("small", sa.Integer),
    sa.Column("flag", sa.Boolean),
    sa.Column("json", sa.JSON),
    sa.Index("things_by_double", "double"),
)


class Things(Notes):
    name = "notes"
    tables = everything


def _things() -> list[dict[str, object]]:
    values: list[dict[str, object]] = [
        {"text": "", "values": b"", "double": 0.0, "small": 0, "flag": False, "json": {}},
        {"text": "é\n\\N\t\U0001f600", "values": bytes(range(256)) * 9000, "double": float("inf")},
        {"text": "x" * 3_000_000, "double": -0.1, "small": -(2**31), "flag": True, "json": {"a": [1, None, "é"]}},
        {"double": float("-inf"), "small": 2**31 - 1},
    ]
    empty: dict[str, object] = dict.fromkeys(("text", "values", "double", "small", "flag"))
    return [{"id": number - 2**62, **empty, "json": None, **value} for number, value in enumerate(values)]


def test_every_type_of_column_comes_back(location: str, objects: ObjectPlace) -> None:
    generations = Generations(Things(), Database(location))
    kept = Snapshots(generations, objects)
    rows = generations.create_live()
    with rows.writing() as connection:
        for thing in _things():
            connection.execute(sa.insert(things), thing)
    before = rows.digest()
    with rows.transaction() as connection:
        snapshot = kept.take(connection, lambda _size: None)
    generations.discard(rows)
    back = kept.restore(snapshot)
    assert back.digest() == before
    with back.transaction() as connection:
        assert {index["name"] for index in sa.inspect(connection).get_indexes("things")} == {"things_by_double"}
    back.close()


def test_packed_bytes_are_left_as_they_are(postgres_url: str) -> None:
    rows = Generations(Things(), Database(postgres_url)).create_live()
    with rows.transaction() as connection:
        storage = "SELECT attname FROM pg_attribute WHERE attrelid = 'things'::regclass AND attstorage = 'e'"
        assert connection.scalars(sa.text(storage)).all() == ["values"]
    rows.close()


def test_an_index_is_there_again(location: str, objects: ObjectPlace) -> None:
    generations = Generations(Notes(), Database(location))
    rows = generations.create_live()
    with rows.transaction() as connection:
        before = sorted(str(index["name"]) for index in sa.inspect(connection).get_indexes("rf_events"))
        snapshot = Snapshots(generations, objects).take(connection, lambda _size: None)
    generations.discard(rows)
    back = Snapshots(generations, objects).restore(snapshot)
    with back.transaction() as connection:
        assert sorted(str(index["name"]) for index in sa.inspect(connection).get_indexes("rf_events")) == before
    back.close()
