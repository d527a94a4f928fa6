"""Parsers of references and times: "fraud-detector@champion", "models:/fraud-detector/3", "2026-11-03T14:00Z"."""

import glob
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.errors import InvalidRequest

UINT64_MAX: Final = 2**64 - 1
UINT32_MAX: Final = 2**32 - 1

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_RUN_ID: Final = re.compile(r"[0-9a-f]{32}")
_VERSION: Final = re.compile(r"[vV]?([0-9]{1,10})", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# RFC 3339, with optional seconds.
_TIME: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}(?::\d{2})?)(?:(?<=:\d\d:\d\d)\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


class AliasReference(NamedTuple):
    """An alias of a model; an empty alias means all of the model's."""

    model: str
    alias: str


class VersionReference(NamedTuple):
    """A version of a model, by number."""

    model: str
    version: int


class RunReference(NamedTuple):
    """An artifact of a run; an empty path means the run's root."""

    run_id: str
    path: str


class DigestReference(NamedTuple):
    """An artifact, by its manifest's digest."""

    digest: str


class HasRunId(Protocol):
    """A live run, or a run as returned by the service."""

    @property
    def run_id(self) -> str:
        """32 lower-case hex digits."""
        ...


RunLike = str | HasRunId
VersionLike = v1.Version | int | str
Past = int | datetime | str
ArtifactReference = AliasReference | VersionReference | RunReference | DigestReference


def parse_alias(text: str) -> AliasReference:
    """Parse "model@alias" or "models:/model@alias".

    Raises:
        InvalidRequest: INVALID_REFERENCE.
    """
    reference = parse_aliases(text)
    if not reference.alias:
        raise _invalid(text, "expected MODEL@ALIAS")
    return reference


def parse_aliases(text: str) -> AliasReference:
    """Parse "model@alias", or "model" for all of its aliases, with or without "models:/" in front.

    Raises:
        InvalidRequest: INVALID_REFERENCE.
    """
    name = text.removeprefix("models:/")
    model, at, alias = name.partition("@")
    if not model or (at and not alias) or "@" in alias or ":" in model or "/" in name:
        raise _invalid(text, "expected MODEL@ALIAS or MODEL")
    return AliasReference(model, alias)


def parse_filter(text: str) -> AliasReference:
    """Parse a reference as parse_aliases does, or "@alias" for that alias of every model, or "" for all aliases.

    Raises:
        InvalidRequest: INVALID_REFERENCE.
    """
    if not text:
        return AliasReference("", "")
    if text.startswith("@"):
        return AliasReference("", parse_aliases(f"every{text}").alias)
    return parse_aliases(text)


def parse_scope(text: str) -> AliasReference:
    """Parse a reference as parse_aliases does, into two patterns: names without "*" and "?" match only themselves.

    "a[*]" matches only the name "a*".

    Raises:
        InvalidRequest: INVALID_REFERENCE.
    """
    model, alias = parse_aliases(text)
    return AliasReference(_pattern(model), _pattern(alias) if alias else "*")


def parse_artifact(text: str) -> ArtifactReference:
    """Parse "models:/NAME@ALIAS", "models:/NAME/VERSION", "runs:/RUN_ID/PATH" or "sha256:HEX".

    Raises:
        InvalidRequest: INVALID_REFERENCE.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "models" and rest.startswith("/"):
        return _model_artifact(text, rest[1:])
    if scheme == "runs" and rest.startswith("/"):
        run_id, _, path = rest[1:].partition("/")
        if _RUN_ID.fullmatch(run_id):
            return RunReference(run_id, normal_path(path.strip("/")))
        raise _invalid(text, "expected a run id of 32 lower-case hex digits")
    if is_digest(text):
        return DigestReference(text)
    raise _invalid(text, "expected models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID/PATH or sha256:HEX")


def is_digest(text: str) -> bool:
    """Return whether a text is a digest: "sha256:" and 64 lower-case hex digits."""
    return _DIGEST.fullmatch(text) is not None


def normal_path(path: str) -> str:
    """Return a path in Unicode normal form C, as in manifests; file systems may use another form."""
    return unicodedata.normalize("NFC", path)


def run_id_of(run: RunLike) -> str:
    """Return the id of a run, given as a live run, a message or an id."""
    return run if isinstance(run, str) else run.run_id


def version_number(model: str, version: VersionLike) -> int:
    """Return the number of a model's version, given as 3, "v3", "3" or a message.

    Raises:
        InvalidRequest: INVALID_VERSION if it is not a number, or a version of another model.
    """
    if isinstance(version, v1.Version):
        if version.model != model:
            raise _invalid_version(model, f"got a version of {version.model!r}")
        return version.version
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    number = int(match[1]) if match else version
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= UINT32_MAX:
        raise _invalid_version(model, f"expected a whole number >= 1, such as 3 or 'v3', got {version!r}")
    return number


def revision(value: int | None, name: str = "expected_revision") -> int | None:
    """Return a revision after checking its range; None for None.

    Raises:
        InvalidRequest: INVALID_REVISION.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= UINT64_MAX:
        message = f"{name} must be a whole number >= 0, got {value!r}"
        raise InvalidRequest("INVALID_REVISION", message, {"field": name})
    return value


def as_of(past: Past | None, epoch: int = 0) -> v1.AsOf | None:
    """Return a point in the past, given as a revision (int or digits), an aware datetime or an RFC 3339 time.

    `epoch` is that of the log when the revision was read, 0 for the first. None returns None.

    Raises:
        InvalidRequest: INVALID_REVISION, INVALID_TIME.
    """
    if past is None:
        return None
    if isinstance(past, datetime):
        return v1.AsOf(time=_from_datetime(past))
    if isinstance(past, str) and not (past.isascii() and past.isdigit()):
        return v1.AsOf(time=parse_time(past))
    position = revision(int(past) if isinstance(past, str) else past, "revision") or 0
    return v1.AsOf(position=position, epoch=epoch)


def timestamp(time: datetime | str | None) -> Timestamp | None:
    """Return a time as a message, given as an aware datetime or an RFC 3339 time; None for None.

    Raises:
        InvalidRequest: INVALID_TIME.
    """
    if time is None:
        return None
    return parse_time(time) if isinstance(time, str) else _from_datetime(time)


def just_after(time: Timestamp) -> Timestamp:
    """Return the time a nanosecond later, for conditions with an exclusive end."""
    carry, nanos = divmod(time.nanos + 1, 1_000_000_000)
    return Timestamp(seconds=time.seconds + carry, nanos=nanos)


def parse_time(text: str) -> Timestamp:
    """Parse an RFC 3339 time to the nanosecond; the seconds are optional.

    Raises:
        InvalidRequest: INVALID_TIME.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise _invalid_time(text)
    date, clock, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{offset.upper()}")
    except ValueError as error:
        raise _invalid_time(text) from error
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    return _in_range(Timestamp(seconds=seconds, nanos=int((fraction or "").ljust(9, "0"))), text)


def _from_datetime(moment: datetime) -> Timestamp:
    # A time without a zone would differ from machine to machine.
    if moment.utcoffset() is None:
        raise _invalid_time(str(moment))
    seconds, rest = divmod(moment - _EPOCH, timedelta(seconds=1))
    return _in_range(Timestamp(seconds=seconds, nanos=rest // timedelta(microseconds=1) * 1000), str(moment))


def _in_range(time: Timestamp, text: str) -> Timestamp:
    # A zone can move the first and last day out of the years 1 to 9999.
    if not -62135596800 <= time.seconds <= 253402300799:
        raise _invalid_time(text)
    return time


def _pattern(name: str) -> str:
    return name if set(name) & set("*?") else glob.escape(name)


def _model_artifact(text: str, rest: str) -> AliasReference | VersionReference:
    if "@" in rest:
        return parse_alias(text)
    model, _, number = rest.partition("/")
    if model and number.isascii() and number.isdigit() and 1 <= int(number[:11]) <= UINT32_MAX:
        return VersionReference(model, int(number))
    raise _invalid(text, "expected models:/NAME@ALIAS or models:/NAME/VERSION")


def _invalid(text: str, fault: str) -> InvalidRequest:
    return InvalidRequest("INVALID_REFERENCE", f"invalid reference {text!r}: {fault}", {"reference": text})


def _invalid_version(model: str, fault: str) -> InvalidRequest:
    return InvalidRequest("INVALID_VERSION", f"invalid version of {model!r}: {fault}", {"model": model})


def _invalid_time(text: str) -> InvalidRequest:
    return InvalidRequest(
        "INVALID_TIME",
        f"invalid time {text!r}: expected RFC 3339 with a zone, such as 2026-11-03T14:00Z",
        {"time": text},
    )
