"""The records of a journal: what a run logs, framed by length and checksum."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from google.protobuf.message import DecodeError

from rollforward import v1

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.message import Message

# The kinds of payloads: a payload's first byte.
POINTS: Final = 1
POINTS_WITH_CONTEXT: Final = 2
LABELS: Final = 3
CALL: Final = 4
START: Final = 5
ARTIFACT: Final = 6

RECORD_BYTES: Final = 256 * 1024
"""The maximum size of a record of several points or labels, in bytes."""

_FRAME: Final = struct.Struct("<II")
# A greater length means that the file is damaged.
_MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024
_POINT: Final = struct.Struct("<BqqdH")
_MOMENT: Final = struct.Struct("<Bqq")
_ENTRY: Final = struct.Struct("<dH")
_LENGTH: Final = struct.Struct("<H")

# The calls that a journal can hold, and their request messages.
REQUESTS: Final[dict[str, type[Message]]] = {
    "ResumeRun": v1.ResumeRunRequest,
    "FinishRun": v1.FinishRunRequest,
    "LogLineage": v1.LogLineageRequest,
    "LogArtifact": v1.LogArtifactRequest,
    "RenameRun": v1.RenameRunRequest,
    "DescribeRun": v1.DescribeRunRequest,
}


class Count(NamedTuple):
    """A number of logged records, by kind."""

    points: int
    """Metric points."""
    labels: int
    """Parameters and tags."""
    calls: int = 0
    """All others: starts, ends, artifacts, datasets."""

    @property
    def total(self) -> int:
        """The number of records of all kinds."""
        return self.points + self.labels + self.calls

    def describe(self) -> str:
        """Return the count as text, such as "3 metric points, 1 parameters and tags"."""
        names = ("metric points", "parameters and tags", "artifacts and other records")
        return ", ".join(f"{number} {name}" for number, name in zip(self, names, strict=True) if number) or "nothing"

    def plus(self, other: Count) -> Count:
        """Return the sum with another count."""
        return Count(self.points + other.points, self.labels + other.labels, self.calls + other.calls)

    def minus(self, other: Count) -> Count:
        """Return the difference to another count, at least 0 for each kind."""
        return Count(*(max(0, mine - theirs) for mine, theirs in zip(self, other, strict=True)))


class PointContext(NamedTuple):
    """The logged model and the dataset that points belong to; empty strings for none."""

    model_id: str
    dataset_name: str
    dataset_digest: str


NO_CONTEXT: Final = PointContext("", "", "")


class Points(NamedTuple):
    """Points of one step and time."""

    step: int
    timestamp: int
    values: list[tuple[bytes, float]]
    """Names, in UTF-8, with their values."""
    context: PointContext


class Start(NamedTuple):
    """A run to start; its experiment's id is looked up by name at delivery."""

    experiment: str
    resume: bool
    """Whether to resume a run of that id that exists, instead of failing."""
    request: v1.StartRunRequest


class Call(NamedTuple):
    """A call to the tracking service."""

    method: str
    request: Message


class Artifact(NamedTuple):
    """An artifact to upload and log; its files are in the journal's folder, named by the request's id."""

    request: v1.LogArtifactRequest


Record = Points | v1.LogBatchRequest | Start | Call | Artifact


def frame(payload: bytes) -> bytes:
    """Return a payload with its frame: length and checksum."""
    return _FRAME.pack(len(payload), crc32(payload)) + payload


def frames(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield each complete payload at the beginning of `data`, with the end of its frame."""
    at, size = 0, len(data)
    while at + _FRAME.size <= size:
        length, checksum = _FRAME.unpack_from(data, at)
        begin, at = at + _FRAME.size, at + _FRAME.size + length
        if not 0 < length <= _MAX_PAYLOAD_BYTES or at > size:
            return
        payload = data[begin:at]
        if crc32(payload) != checksum:
            return
        yield payload, at


def first_frame_bytes(data: bytes) -> int:
    """Return the size of the first frame of `data`, as its header says; 0 if that is invalid."""
    if len(data) < _FRAME.size:
        return _FRAME.size
    length, _ = _FRAME.unpack_from(data)
    return _FRAME.size + length if 0 < length <= _MAX_PAYLOAD_BYTES else 0


def framed_point(step: int, timestamp: int, value: float, name: bytes) -> bytes:
    """Return the framed record of one point of a metric."""
    payload = _POINT.pack(POINTS, step, timestamp, value, len(name)) + name
    return _FRAME.pack(len(payload), crc32(payload)) + payload


def single_point(payload: bytes) -> tuple[int, int, float, bytes] | None:
    """Return the step, time, value and name in a record of one point without a context; None for any other record."""
    if payload[0] != POINTS or len(payload) < _POINT.size:
        return None
    _, step, timestamp, value, length = _POINT.unpack_from(payload)
    name = payload[_POINT.size :]
    return (step, timestamp, value, name) if len(name) == length else None


def points(
    step: int, timestamp: int, values: Iterable[tuple[bytes, float]], context: PointContext = NO_CONTEXT
) -> bytes:
    """Return the payload of points of one step and time."""
    head = _MOMENT.pack(POINTS if context == NO_CONTEXT else POINTS_WITH_CONTEXT, step, timestamp)
    entries = b"".join(_ENTRY.pack(value, len(name)) + name for name, value in values)
    return head + (b"" if context == NO_CONTEXT else b"".join(map(_text, context))) + entries


def labels(request: v1.LogBatchRequest) -> bytes:
    """Return the payload of parameters and tags, and of tags to remove."""
    return bytes((LABELS,)) + request.SerializeToString(deterministic=True)


def call(method: str, request: Message) -> bytes:
    """Return the payload of a call to the tracking service; the method must be in REQUESTS."""
    return bytes((CALL,)) + _text(method) + request.SerializeToString(deterministic=True)


def start(experiment: str, request: v1.StartRunRequest, *, resume: bool) -> bytes:
    """Return the payload of the start of a run."""
    return bytes((START, resume)) + _text(experiment) + request.SerializeToString(deterministic=True)


def artifact(request: v1.LogArtifactRequest) -> bytes:
    """Return the payload of an artifact to upload and log."""
    return bytes((ARTIFACT,)) + request.SerializeToString(deterministic=True)


def parse(payload: bytes) -> Record:
    """Parse a payload.

    Raises:
        ValueError: A later version of this library wrote the record, or it is damaged.
    """
    kind = payload[0]
    try:
        if kind in {POINTS, POINTS_WITH_CONTEXT}:
            return _points(payload)
        if kind == LABELS:
            return v1.LogBatchRequest.FromString(payload[1:])
        if kind == START:
            experiment, at = _read_text(payload, 2)
            return Start(experiment, bool(payload[1]), v1.StartRunRequest.FromString(payload[at:]))
        if kind == CALL:
            method, at = _read_text(payload, 1)
            return Call(method, REQUESTS[method].FromString(payload[at:]))
        if kind == ARTIFACT:
            return Artifact(v1.LogArtifactRequest.FromString(payload[1:]))
    except (KeyError, DecodeError, struct.error) as error:
        raise ValueError(f"invalid record of kind {kind}") from error
    raise ValueError(f"unknown record kind {kind}: expected 1 to {ARTIFACT}. Upgrade rollforward")


def _points(payload: bytes) -> Points:
    kind, step, timestamp = _MOMENT.unpack_from(payload)
    at, context = _MOMENT.size, NO_CONTEXT
    if kind == POINTS_WITH_CONTEXT:
        model_id, at = _read_text(payload, at)
        dataset_name, at = _read_text(payload, at)
        dataset_digest, at = _read_text(payload, at)
        context = PointContext(model_id, dataset_name, dataset_digest)
    values: list[tuple[bytes, float]] = []
    while at < len(payload):
        value, length = _ENTRY.unpack_from(payload, at)
        at += _ENTRY.size + length
        values.append((payload[at - length : at], value))
    return Points(step, timestamp, values, context)


def _text(text: str) -> bytes:
    data = text.encode()
    return _LENGTH.pack(len(data)) + data


def _read_text(payload: bytes, at: int) -> tuple[str, int]:
    (length,) = _LENGTH.unpack_from(payload, at)
    begin = at + _LENGTH.size
    return payload[begin : begin + length].decode(), begin + length
