"""The class with all calls for runs."""

from rollforward.tracking.compare import RunComparer
from rollforward.tracking.live_run.start import RunStarter
from rollforward.tracking.run_lookup import RunLookup
from rollforward.tracking.watch_runs import RunWatcher


class Runs(RunStarter, RunLookup, RunComparer, RunWatcher):
    """Runs: start, resume, find, compare, watch and change them."""
