"""The services as histories run them: with frequent bookmarks, and with one bug put in on purpose where one is named.

`python -m tests.histories.systems.program BUG up --data ...`; BUG is `none` or one of `BUGS`.
"""

from __future__ import annotations

import sys

from cyclopts import App

import services.registry.watch as watching
from services.__main__ import start, up
from tests.histories.bugs.catalogue import BUGS
from tests.histories.systems.clocks import follow_clock

BOOKMARK_SECONDS = 0.2


def main(bug: str, command: list[str]) -> int:
    """Plant the bug and start the services."""
    follow_clock()
    assert hasattr(watching, "BOOKMARK_SECONDS")
    watching.BOOKMARK_SECONDS = BOOKMARK_SECONDS
    if bug != "none":
        BUGS[bug].plant()
    app = App(name="program", help=__doc__, result_action="return_value")
    app.command(up)
    app.command(start)
    return int(app(command))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
