"""The registry against its fold: after any commands, its rows and memory equal its log, at every position."""

from __future__ import annotations

import tempfile

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.registry_machine import Registry
from tests.servers.postgres import PostgresServer


class OnSqlite(Registry):
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


class OnPostgresql(Registry):
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


def examples(count: int, steps: int = 30) -> settings:
    """Return settings for a number of sequences and of steps in each."""
    return settings(
        max_examples=count, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )


def test_registry_matches_model_on_sqlite() -> None:
    run_state_machine_as_test(OnSqlite, settings=examples(25))


def test_registry_matches_model_on_postgresql(postgres: PostgresServer) -> None:
    run_state_machine_as_test(lambda: OnPostgresql(postgres), settings=examples(8))  # type: ignore[arg-type]
