"""Uses of other libraries' internals: each test fails when a release changes what docs/architecture.md lists."""

from __future__ import annotations

import inspect
import sys
import threading
from importlib import metadata
from pathlib import Path

import obstore
import pytest
import sqlalchemy as sa
from cel_expr_python import cel
from nats.aio.client import Client as NatsClient
from nats.aio.subscription import Subscription
from nats.protocol.parser import Parser
from obstore.store import LocalStore

from eventstore.jetstream import connection as jetstream_connection
from services.registry.gates.cost import Syntax, all_nodes
from services.tracking.queries import run_search

PAGE = Path(__file__).resolve().parents[2] / "docs/architecture.md"


def checked(expression: str) -> Syntax:
    """Return the checked tree of an expression over a map of doubles and a number, by cel-expr-python."""
    types = {"metrics": cel.Type.Map(cel.Type.STRING, cel.Type.DOUBLE), "limit": cel.Type.DOUBLE}
    return Syntax(cel.NewEnv(variables=types).compile(expression).serialize(), frozenset(types))


def test_cel_expr_python_keeps_field_numbers_of_checked_tree() -> None:
    syntax = checked("metrics.all(key, metrics[key] > 0.5) && limit < 2.0")
    kinds = [node.WhichOneof("kind") for node in all_nodes(syntax.checked.expr)]
    assert {"call", "comprehension", "const", "ident"} <= {*kinds}, "cel.expr.Expr has other field numbers"
    assert None not in kinds, "cel.expr.Expr has a kind of node that gates/cost.py does not know"
    [loop] = [node.comprehension for node in all_nodes(syntax.checked.expr) if node.HasField("comprehension")]
    assert loop.range.ident.name == "metrics"
    assert loop.variable == "key"
    assert syntax.checked.source_info.positions, "cel.expr.SourceInfo.positions has another field number"


def test_cel_expr_python_keeps_names_of_overloads() -> None:
    overloads = {
        name
        for expression in ("limit == 0.5", "limit != 0.5", "limit in [0.5]", "'a' + 'b' == 'ab'", "[1] + [2] == [1]")
        for reference in checked(expression).checked.references
        for name in reference.reference.overloads
    }
    assert {"equals", "not_equals", "in_list", "add_string", "add_list"} <= overloads


def test_cel_expr_python_marks_primitive_types() -> None:
    syntax = checked("limit > 0.5")
    types = {entry.id: entry.type for entry in syntax.checked.types}
    [ident] = [node for node in all_nodes(syntax.checked.expr) if node.HasField("ident")]
    assert types[ident.id].HasField("primitive"), "cel.expr.Type.primitive has another field number"


def test_nats_py_parses_headers_by_overridden_method() -> None:
    assert "_parse_header_lines" in NatsClient._process_headers.__code__.co_names
    block = b"ce-id: 1\r\nce-actor: alice\r\n\r\n"
    assert jetstream_connection._Client._parse_header_lines(block) == NatsClient._parse_header_lines(block)


def test_nats_py_delivers_messages_by_overridden_method() -> None:
    assert "_process_msg" in Parser.parse.__code__.co_names
    ours = inspect.signature(jetstream_connection._Client._process_msg)
    assert [*inspect.signature(NatsClient._process_msg).parameters] == [*ours.parameters]


def test_nats_py_keeps_attributes_of_connection() -> None:
    client = NatsClient()
    assert (client._pending, client._pending_data_size) == ([], 0)
    assert client._status == NatsClient.DISCONNECTED
    assert Subscription(client, id=7)._id == 7


def test_obstore_marks_unfinished_files_with_hash(tmp_path: Path) -> None:
    writer = obstore.open_writer(LocalStore(tmp_path), "object", buffer_size=1)
    writer.write(b"x" * 100)
    unfinished = [path.name for path in tmp_path.iterdir()]
    assert unfinished
    assert all(name.startswith("object#") for name in unfinished), f"other names of unfinished files: {unfinished}"
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["object"]


@pytest.mark.xdist_group("postgres")
def test_postgresql_applies_planner_settings_within_transaction(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    names = [*run_search._BY_INDEX, *run_search._WHOLE]
    show = sa.select(*(sa.func.current_setting(name) for name in names))
    with engine.begin() as connection:
        before = [*connection.execute(show).one()]
        connection.execute(run_search._TO_WALK)
        set_to = dict(zip(names, connection.execute(show).one(), strict=True))
        assert set_to == run_search._BY_INDEX | dict.fromkeys(run_search._WHOLE, "off")
        connection.exec_driver_sql("CREATE TEMPORARY TABLE t AS SELECT generate_series(1, 1000) AS n")
        connection.exec_driver_sql("CREATE INDEX ON t (n)")
        plan = "\n".join(row[0] for row in connection.exec_driver_sql("EXPLAIN SELECT n FROM t ORDER BY n LIMIT 3"))
        assert "Index" in plan, plan
        assert "Sort" not in plan, plan
    with engine.begin() as connection:
        assert [*connection.execute(show).one()] == before
    engine.dispose()


def test_sqlalchemy_exposes_driver_connection_and_parameter_order(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'rows.db'}")
    with engine.connect() as connection:
        assert type(connection.connection.driver_connection).__module__ == "sqlite3"
    compiled = sa.select(sa.bindparam("a", 1), sa.bindparam("b", 2)).compile(dialect=engine.dialect)
    assert compiled.positiontup == ["a", "b"]
    engine.dispose()


def test_cpython_exposes_frames_and_distribution_path() -> None:
    assert sys._getframe(0).f_code.co_name == "test_cpython_exposes_frames_and_distribution_path"
    assert threading.get_ident() in sys._current_frames()
    folder = getattr(metadata.distribution("grpcio"), "_path", None)
    assert folder is not None
    assert folder.name == f"grpcio-{metadata.version('grpcio')}.dist-info"


def test_page_lists_libraries_of_these_tests() -> None:
    section = PAGE.read_text().partition("## Uses of other libraries' internals")[2].partition("\n## ")[0]
    for library in ("cel-expr-python", "nats-py", "PostgreSQL", "obstore", "SQLAlchemy", "CPython"):
        assert f"| {library} |" in section
