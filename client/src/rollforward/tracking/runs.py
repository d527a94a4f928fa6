"""Runs: all calls about them in one class."""

from rollforward.tracking.compare import RunComparer
from rollforward.tracking.live_run.start import RunStarter
from rollforward.tracking.run_lookup import RunLookup
from rollforward.tracking.watch_runs import RunWatcher


class Runs(RunStarter, RunLookup, RunComparer, RunWatcher):
    """Runs: start and resume them, find, compare and watch them, change what is recorded of them."""
