"""Fixed statements, run on the driver: what SQLAlchemy does around them takes longer than they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import sqlalchemy as sa

Question = sa.Select[Any] | sa.CompoundSelect[Any]
Row = tuple[Any, ...]

_KEPT = 256


def answer(connection: sa.Connection, statement: Question, **given: Any) -> list[Row]:
    """All rows that answer a question, as the driver says them: what is true is a number in SQLite.

    Args:
        rows: Where it is asked.
        question: It is compiled once, and known by its identity: it should be made once, too.
        given: What its parameters are, as the driver takes them.

    Raises:
        sqlalchemy.exc.DBAPIError: As when SQLAlchemy asks.
    """
    with _driver(connection) as driver:
        return _text(statement, connection.dialect).ask(driver, given)()


@contextmanager
def answers(connection: sa.Connection, statements: Sequence[Question], **given: Any) -> Iterator[Iterator[list[Row]]]:
    """Return the results of several queries, in turn; see `fetch_all`.

    While one of them is worked on, PostgreSQL is at the next.
    """
    texts = [_text(statement, connection.dialect) for statement in statements]
    with _driver(connection) as driver:
        if connection.dialect.name == "postgresql":
            with driver.pipeline():
                yield _one_ahead(driver, texts, given)
        else:
            yield (text.ask(driver, given)() for text in texts)


def _one_ahead(driver: Any, texts: Iterable[_Text], given: Mapping[str, Any]) -> Iterator[list[Row]]:
    """In a pipeline a question is only sent; to read an answer is to wait for all that were."""
    read = None
    for text in texts:
        before = read and read()
        read = text.ask(driver, given)
        if before is not None:
            yield before
    if read:
        yield read()


class _Text:
    """A question in the words of a driver."""

    def __init__(self, compiled: sa.Compiled) -> None:
        self._text = str(compiled)
        self._fixed = compiled.params
        self._names: Sequence[str] | None = getattr(compiled, "positiontup", None)

    def ask(self, driver: Any, given: Mapping[str, Any]) -> Callable[[], list[Row]]:
        """Asks, and returns what reads the answer."""
        every = {**self._fixed, **given}
        if self._names is not None:
            cursor = driver.execute(self._text, [every[name] for name in self._names])
        else:
            # In PostgreSQL's binary form a number need not be read digit by digit.
            cursor = driver.cursor(binary=True).execute(self._text, every)
        read: Callable[[], list[Row]] = cursor.fetchall
        return read


@lru_cache(maxsize=_KEPT)
def _text(statement: Question, dialect: sa.Dialect) -> _Text:
    return _Text(statement.compile(dialect=dialect))


@contextmanager
def _driver(connection: sa.Connection) -> Iterator[Any]:
    """Open the driver's own connection; its errors become SQLAlchemy's."""
    kind = connection.dialect.loaded_dbapi.Error
    try:
        yield connection.connection.driver_connection
    except kind as error:
        found = sa.exc.DBAPIError.instance("a question past SQLAlchemy", None, error, kind, dialect=connection.dialect)
        raise cast("sa.exc.DBAPIError", found) from error
