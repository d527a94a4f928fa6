"""The names of the systems. Without a suffix a system keeps its rows in SQLite."""

LIMIT = "limit"
OURS = ("rollforward", "rollforward-postgres")
PEERS = ("mlflow", "mlflow-postgres")
TRACKIO = "trackio"
SERVERS = (LIMIT, *OURS, *PEERS)
ALL = (*SERVERS, TRACKIO)
