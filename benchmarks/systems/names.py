"""The names of the systems. Without a suffix a system keeps its rows in SQLite."""

LIMIT = "limit"
BARE = "bare"
LIMITS = (LIMIT, BARE)
OURS = ("rollforward", "rollforward-postgres")
PEERS = ("mlflow", "mlflow-postgres")
TRACKIO = "trackio"
SERVERS = (LIMIT, *OURS, *PEERS)
WRITERS = (*LIMITS, *OURS, *PEERS)
ALL = (*WRITERS, TRACKIO)
