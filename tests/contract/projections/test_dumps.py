"""Snapshots keep every type of column and every index."""

from __future__ import annotations

import sqlalchemy as sa

from eventstore.projections.database import Database
from eventstore.projections.generations import Generations
from eventstore.projections.snapshots.store import Snapshots
from services.artifacts.objects import ObjectPlace
from tests.contract.projections.notes import Notes

metadata = sa.MetaData()

items = sa.Table(
    "items",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("text", sa.Text),
    sa.Column("values", sa.LargeBinary),
    sa.Column("double", sa.Double),
    sa.Column("small", sa.Integer),
    sa.Column("flag", sa.Boolean),
    sa.Column("json", sa.JSON),
    sa.Index("items_by_double", "double"),
)


class Items(Notes):
    name = "notes"
    tables = metadata


def _item_rows() -> list[dict[str, object]]:
    values: list[dict[str, object]] = [
        {"text": "", "values": b"", "double": 0.0, "small": 0, "flag": False, "json": {}},
        {"text": "é\n\\N\t\U0001f600", "values": bytes(range(256)) * 9000, "double": float("inf")},
        {"text": "x" * 3_000_000, "double": -0.1, "small": -(2**31), "flag": True, "json": {"a": [1, None, "é"]}},
        {"double": float("-inf"), "small": 2**31 - 1},
    ]
    empty: dict[str, object] = dict.fromkeys(("text", "values", "double", "small", "flag"))
    return [{"id": number - 2**62, **empty, "json": None, **value} for number, value in enumerate(values)]


def test_columns_of_every_type_are_restored(location: str, objects: ObjectPlace) -> None:
    generations = Generations(Items(), Database(location))
    snapshots = Snapshots(generations, objects)
    rows = generations.create_live()
    with rows.writing() as connection:
        for item in _item_rows():
            connection.execute(sa.insert(items), item)
    before = rows.digest()
    with rows.transaction() as connection:
        snapshot = snapshots.take(connection, lambda _size: None)
    generations.discard(rows)
    restored = snapshots.restore(snapshot)
    assert restored.digest() == before
    with restored.transaction() as connection:
        assert {index["name"] for index in sa.inspect(connection).get_indexes("items")} == {"items_by_double"}
    restored.close()


def test_packed_bytes_are_not_compressed_again(postgres_url: str) -> None:
    rows = Generations(Items(), Database(postgres_url)).create_live()
    with rows.transaction() as connection:
        storage = "SELECT attname FROM pg_attribute WHERE attrelid = 'items'::regclass AND attstorage = 'e'"
        assert connection.scalars(sa.text(storage)).all() == ["values"]
    rows.close()


def test_index_is_restored(location: str, objects: ObjectPlace) -> None:
    generations = Generations(Notes(), Database(location))
    rows = generations.create_live()
    with rows.transaction() as connection:
        before = sorted(str(index["name"]) for index in sa.inspect(connection).get_indexes("rf_events"))
        snapshot = Snapshots(generations, objects).take(connection, lambda _size: None)
    generations.discard(rows)
    restored = Snapshots(generations, objects).restore(snapshot)
    with restored.transaction() as connection:
        assert sorted(str(index["name"]) for index in sa.inspect(connection).get_indexes("rf_events")) == before
    restored.close()
