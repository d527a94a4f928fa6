"""The manifest of a backup: what is in it, and how each log is recognised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eventstore import Kind, Rejected, error_text, replace_durably

FORM = 1
NAME = "manifest.json"
ARTIFACTS = "artifacts"
KEY = "webhook.key"


@dataclass(frozen=True, slots=True)
class LogBackup:
    """One log in a backup.

    Attributes:
        file: The file of its snapshot, relative to the backup.
        size: How many bytes that has.
        sha256: The digest of it.
        position: The last position that the snapshot is sure to hold.
        mark: The short hash of the id of the event there; empty when it was erased, or there is none.
        messages: How many events it is sure to hold.
        config: The configuration of its stream, as NATS says it.
        state: The state of its stream, as NATS says it.
    """

    file: str
    size: int
    sha256: str
    position: int
    mark: str
    messages: int
    config: Mapping[str, Any]
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a backup.

    Attributes:
        created: When it was taken, in RFC 3339.
        version: Of the server distribution that took it.
        logs: The logs, by name.
        artifacts: The objects of the artifact store by name, with their sizes.
        webhook_key: The sha256 of the key of webhooks; empty when there was none in the data directory.
    """

    created: str
    version: str
    logs: Mapping[str, LogBackup]
    artifacts: Mapping[str, int] = field(default_factory=dict)
    webhook_key: str = ""

    def write(self, backup: Path) -> None:
        """Put this manifest in the place of the last one, durably."""
        text = json.dumps({"form": FORM, **asdict(self)}, indent=1, sort_keys=True)
        replace_durably(backup / NAME, [text.encode()])


def read_manifest(backup: Path) -> Manifest:
    """Read the manifest of a backup.

    Raises:
        Rejected: INVALID_BACKUP when there is none that can be read.
    """
    try:
        content = json.loads((backup / NAME).read_bytes())
        if content.pop("form") != FORM:
            raise invalid(f"cannot read the backup in {backup}: unknown format. Use the release that took it")
        logs = {log: LogBackup(**entry) for log, entry in content.pop("logs").items()}
        return Manifest(logs=logs, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise invalid(f"cannot read the backup in {backup}: {error_text(error)}") from error


def invalid(message: str) -> Rejected:
    """Return the refusal of a backup that is damaged or is none."""
    return Rejected(Kind.INVALID, "INVALID_BACKUP", message)


def pieces_of(path: Path, size: int = 1024 * 1024) -> Iterator[bytes]:
    """Give the bytes of a file in pieces."""
    with path.open("rb") as file:
        while piece := file.read(size):
            yield piece


def digest_of(path: Path) -> str:
    """Return the sha256 of a file."""
    digest = hashlib.sha256()
    for piece in pieces_of(path):
        digest.update(piece)
    return digest.hexdigest()
