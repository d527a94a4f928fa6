"""The class with all calls for aliases."""

from rollforward.registry.history import AliasHistory
from rollforward.registry.rollback import Rollbacks
from rollforward.registry.watch_aliases import AliasWatcher


class Aliases(AliasHistory, Rollbacks, AliasWatcher):
    """Aliases of registered models: move, resolve, watch and roll them back, and read their history."""
