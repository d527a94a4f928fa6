"""Backups: the logs, the artifacts and the key of webhooks in a directory, taken while the services run."""
