"""The names of the systems. Without a suffix a system keeps its rows in SQLite."""

LIMIT = "limit"
BARE = "bare"
LIMITS = (LIMIT, BARE)
OURS = ("rollforward", "rollforward-postgres")
REST = "rollforward-rest"
PEERS = ("mlflow", "mlflow-postgres")
TRACKIO = "trackio"
SERVERS = (LIMIT, *OURS, REST, *PEERS)
WRITERS = (*LIMITS, *OURS, REST, *PEERS)
ALL = (*WRITERS, TRACKIO)
