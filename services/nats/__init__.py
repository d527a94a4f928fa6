"""The embedded NATS server: its process, its data directory, and its recovery from a full disk."""
