"""Lookup of a run by a prefix of its id, or by its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rollforward._transport.connection import Connection
from rollforward._transport.default import default_client_function
from rollforward.errors import InvalidRequest, NotFound
from rollforward.tracking.stored_runs import StoredRuns

if TYPE_CHECKING:
    from rollforward import v1
    from rollforward.tracking.experiments import Lifecycle

_ID: Final = re.compile(r"[0-9a-f]{32}")
_PREFIX: Final = re.compile(r"[0-9a-f]{4,31}")
# The number of candidates in an error.
_CANDIDATES: Final = 5


class RunLookup(StoredRuns):
    """Runs by a prefix of their id, or by name."""

    def find(self, text: str) -> v1.Run:
        """Return the run with an id, a unique prefix of an id (four digits or more), or a unique name.

        Ids come first, and include those of deleted runs.

        Raises:
            InvalidRequest: AMBIGUOUS_ID if several runs match; the metadata `candidates` has the ids of some.
            NotFound: RUN_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        if _ID.fullmatch(text):
            return self.get(text)
        candidates = _matching(f"run_id LIKE '{text}%'", "all", self._connection) if _PREFIX.fullmatch(text) else []
        if not candidates and text:
            quoted = text.replace("'", "''")
            candidates = _matching(f"run_name = '{quoted}'", "active", self._connection)
        if not candidates:
            raise NotFound("RUN_NOT_FOUND", f"run not found: {text!r}", {"run_id": text})
        if len(candidates) > 1:
            ids = ", ".join(run.run_id for run in candidates[:_CANDIDATES])
            message = f"ambiguous run {text!r}: it matches {ids}. Use a longer prefix of an id"
            raise InvalidRequest("AMBIGUOUS_ID", message, {"candidates": ids})
        return self.get(candidates[0].run_id)


def _matching(condition: str, lifecycle: Lifecycle, connection: Connection) -> list[v1.Run]:
    return StoredRuns(connection).search(filter=condition, lifecycle=lifecycle, limit=_CANDIDATES + 1, brief=True)


find_run = default_client_function("find_run", RunLookup, RunLookup.find)
