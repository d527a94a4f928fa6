"""Times: nanoseconds since 1970 in logs and rows, protobuf timestamps in the contract."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(time_ns: int) -> Timestamp:
    """Nanoseconds since 1970 as a protobuf timestamp."""
    result = Timestamp()
    result.FromNanoseconds(time_ns)
    return result
