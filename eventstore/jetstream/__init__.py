"""The store that NATS JetStream keeps: the one package that knows NATS."""

from eventstore.jetstream.connection import connect
from eventstore.jetstream.monitoring import FlushQuestion, ask_monitor, ask_system_account
from eventstore.jetstream.server_health import ask_ready, ask_write_error
from eventstore.jetstream.store import JetStreamStore
from eventstore.jetstream.subjects import subject_of

__all__ = [
    "FlushQuestion",
    "JetStreamStore",
    "ask_monitor",
    "ask_ready",
    "ask_system_account",
    "ask_write_error",
    "connect",
    "subject_of",
]
