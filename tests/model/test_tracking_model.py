"""Tracking against a plain fold of its log: after any events, its rows equal the log, however it is cut."""

from __future__ import annotations

import tempfile

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.tracking_machine import Tracking
from tests.servers.postgres import PostgresServer


class OnSqlite(Tracking):
    """With rows in a directory."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory()
        super().__init__(self._home.name)

    def teardown(self) -> None:
        """Remove the rows."""
        try:
            super().teardown()
        finally:
            self._home.cleanup()


class OnPostgresql(Tracking):
    """With rows in a database of its own."""

    def __init__(self, server: PostgresServer) -> None:
        self._database = server.database()
        super().__init__(self._database.__enter__())

    def teardown(self) -> None:
        """Remove the rows."""
        try:
            super().teardown()
        finally:
            self._database.__exit__(None, None, None)


def examples(count: int) -> settings:
    """Return settings for a number of sequences."""
    return settings(max_examples=count, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))


def test_tracking_matches_model_on_sqlite() -> None:
    run_state_machine_as_test(OnSqlite, settings=examples(15))


def test_tracking_matches_model_on_postgresql(postgres: PostgresServer) -> None:
    run_state_machine_as_test(lambda: OnPostgresql(postgres), settings=examples(5))  # type: ignore[arg-type]
