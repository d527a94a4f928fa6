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

# What a payload is, by its first byte.
POINTS: Final = 1
POINTS_ABOUT: Final = 2
LABELS: Final = 3
CALL: Final = 4
START: Final = 5
ARTIFACT: Final = 6

RECORD_BYTES: Final = 256 * 1024
"""What a record of several points or labels has at most, in bytes."""

_FRAME: Final = struct.Struct("<II")
# A length beyond this is damage.
_LONGEST: Final = 8 * 1024 * 1024
_POINT: Final = struct.Struct("<BqqdH")
_MOMENT: Final = struct.Struct("<Bqq")
_ENTRY: Final = struct.Struct("<dH")
_LENGTH: Final = struct.Struct("<H")

# The calls that can be journaled, and what each takes.
REQUESTS: Final[dict[str, type[Message]]] = {
    "ResumeRun": v1.ResumeRunRequest,
    "FinishRun": v1.FinishRunRequest,
    "LogLineage": v1.LogLineageRequest,
    "LogArtifact": v1.LogArtifactRequest,
    "RenameRun": v1.RenameRunRequest,
    "DescribeRun": v1.DescribeRunRequest,
}


class Count(NamedTuple):
    """How much was logged."""

    points: int
    """Metric points."""
    labels: int
    """Parameters and tags."""
    calls: int = 0
    """All else: starts, ends, artifacts, datasets."""

    @property
    def total(self) -> int:
        """All together."""
        return self.points + self.labels + self.calls

    def in_words(self) -> str:
        """Return how much was logged, for people."""
        names = ("metric points", "parameters and tags", "artifacts and other records")
        return ", ".join(f"{number} {name}" for number, name in zip(self, names, strict=True) if number) or "nothing"

    def plus(self, other: Count) -> Count:
        """Both together."""
        return Count(self.points + other.points, self.labels + other.labels, self.calls + other.calls)

    def minus(self, other: Count) -> Count:
        """Return the difference to another count, 0 where that is larger."""
        return Count(*(max(0, mine - theirs) for mine, theirs in zip(self, other, strict=True)))


class About(NamedTuple):
    """What points are about besides their run; a text may be empty."""

    model_id: str
    dataset_name: str
    dataset_digest: str


PLAIN: Final = About("", "", "")


class Points(NamedTuple):
    """Points of one moment."""

    step: int
    timestamp: int
    values: list[tuple[bytes, float]]
    """Names in UTF-8 with their values."""
    about: About


class Start(NamedTuple):
    """A run that is to be started; its experiment's id is looked up by name when it is."""

    experiment: str
    resume: bool
    """Whether a run of that id that exists is resumed instead of refused."""
    request: v1.StartRunRequest


class Call(NamedTuple):
    """A call of the tracking service."""

    method: str
    request: Message


class Artifact(NamedTuple):
    """Files that wait in the journal's folder, named after the request's id, with how they are to be logged."""

    request: v1.LogArtifactRequest


Record = Points | v1.LogBatchRequest | Start | Call | Artifact


def frame(payload: bytes) -> bytes:
    """Return a payload as it is in the file."""
    return _FRAME.pack(len(payload), crc32(payload)) + payload


def frames(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Each whole payload at the beginning of `data`, with where its frame ends."""
    at, size = 0, len(data)
    while at + _FRAME.size <= size:
        length, checksum = _FRAME.unpack_from(data, at)
        begin, at = at + _FRAME.size, at + _FRAME.size + length
        if not 0 < length <= _LONGEST or at > size:
            return
        payload = data[begin:at]
        if crc32(payload) != checksum:
            return
        yield payload, at


def wanted(data: bytes) -> int:
    """How many bytes the first frame of `data` says that it has; 0 when that cannot be."""
    if len(data) < _FRAME.size:
        return _FRAME.size
    length, _ = _FRAME.unpack_from(data)
    return _FRAME.size + length if 0 < length <= _LONGEST else 0


def framed_point(step: int, timestamp: int, value: float, name: bytes) -> bytes:
    """One point of a metric as it stands in the file."""
    payload = _POINT.pack(POINTS, step, timestamp, value, len(name)) + name
    return _FRAME.pack(len(payload), crc32(payload)) + payload


def single_point(payload: bytes) -> tuple[int, int, float, bytes] | None:
    """Step, time, value and name of a record of one point about its run alone; None for any other record."""
    if payload[0] != POINTS or len(payload) < _POINT.size:
        return None
    _, step, timestamp, value, length = _POINT.unpack_from(payload)
    name = payload[_POINT.size :]
    return (step, timestamp, value, name) if len(name) == length else None


def points(step: int, timestamp: int, values: Iterable[tuple[bytes, float]], about: About = PLAIN) -> bytes:
    """Points of one moment."""
    head = _MOMENT.pack(POINTS if about == PLAIN else POINTS_ABOUT, step, timestamp)
    entries = b"".join(_ENTRY.pack(value, len(name)) + name for name, value in values)
    return head + (b"" if about == PLAIN else b"".join(map(_text, about))) + entries


def labels(request: v1.LogBatchRequest) -> bytes:
    """Parameters and tags, tags to remove among them."""
    return bytes((LABELS,)) + request.SerializeToString(deterministic=True)


def call(method: str, request: Message) -> bytes:
    """Return the payload of a call of the tracking service that is in REQUESTS."""
    return bytes((CALL,)) + _text(method) + request.SerializeToString(deterministic=True)


def start(experiment: str, request: v1.StartRunRequest, *, resume: bool) -> bytes:
    """Return the payload of the start of a run."""
    return bytes((START, resume)) + _text(experiment) + request.SerializeToString(deterministic=True)


def artifact(request: v1.LogArtifactRequest) -> bytes:
    """Files that wait to be uploaded and logged."""
    return bytes((ARTIFACT,)) + request.SerializeToString(deterministic=True)


def parse(payload: bytes) -> Record:
    """Parse a payload. Raises ValueError for one of a later version of this library."""
    kind = payload[0]
    try:
        if kind in {POINTS, POINTS_ABOUT}:
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
        raise ValueError(f"a record of kind {kind} cannot be read") from error
    raise ValueError(f"records of kind {kind} are not known")


def _points(payload: bytes) -> Points:
    kind, step, timestamp = _MOMENT.unpack_from(payload)
    at, about = _MOMENT.size, PLAIN
    if kind == POINTS_ABOUT:
        model_id, at = _read_text(payload, at)
        dataset_name, at = _read_text(payload, at)
        dataset_digest, at = _read_text(payload, at)
        about = About(model_id, dataset_name, dataset_digest)
    values: list[tuple[bytes, float]] = []
    while at < len(payload):
        value, length = _ENTRY.unpack_from(payload, at)
        at += _ENTRY.size + length
        values.append((payload[at - length : at], value))
    return Points(step, timestamp, values, about)


def _text(text: str) -> bytes:
    data = text.encode()
    return _LENGTH.pack(len(data)) + data


def _read_text(payload: bytes, at: int) -> tuple[str, int]:
    (length,) = _LENGTH.unpack_from(payload, at)
    begin = at + _LENGTH.size
    return payload[begin : begin + length].decode(), begin + length
