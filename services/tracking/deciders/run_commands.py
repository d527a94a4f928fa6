"""The commands of a run: requests, and what the server adds to some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from eventstore import Rejected
from rollforward import v1


@dataclass(frozen=True, slots=True)
class Start:
    """A request to start a run, and the rejection of one that cannot be done in any case."""

    request: v1.StartRunRequest
    rejection: Rejected | None = None


@dataclass(frozen=True, slots=True)
class LogArtifact:
    """A request to log an artifact, with its size and file count, or its rejection.

    Attributes:
        request: The request.
        size_bytes: All bytes of the artifact's files together.
        file_count: How many files it has.
        rejection: The rejection of an artifact that is not stored.
    """

    request: v1.LogArtifactRequest
    size_bytes: int = 0
    file_count: int = 0
    rejection: Rejected | None = None


@dataclass(frozen=True, slots=True)
class Lose:
    """A command to mark a run as lost: no heartbeat since a time, if that is known."""

    run_id: str
    last_heartbeat: Timestamp | None = None


RunRequest: TypeAlias = (
    v1.LogBatchRequest
    | v1.LogLineageRequest
    | v1.FinishRunRequest
    | v1.ResumeRunRequest
    | v1.AttendRunRequest
    | v1.RenameRunRequest
    | v1.DescribeRunRequest
    | v1.DeleteRunRequest
    | v1.RestoreRunRequest
)
RunCommand: TypeAlias = RunRequest | Start | LogArtifact | Lose
