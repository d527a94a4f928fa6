"""Trackio's log: calls as in a training loop. Print the seconds of each.

usage: trackio_log.py CALLS
"""

import contextlib
import io
import json
import sys
import time

import trackio


def main(calls: int) -> None:
    """Log one metric in each call."""
    durations: list[float] = []
    with contextlib.redirect_stdout(io.StringIO()):
        trackio.init(project="bench", name="run")
        for step in range(calls):
            before = time.perf_counter()
            trackio.log({"loss": 1 / (step + 1)}, step=step)
            durations.append(time.perf_counter() - before)
        trackio.finish()
    print(json.dumps(durations))


if __name__ == "__main__":
    main(int(sys.argv[1]))
