"""Signatures of Standard Webhooks, with secrets that are derived from one master key and never stored."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from standardwebhooks.webhooks import Webhook

from eventstore import Kind, Rejected

MIN_KEY_CHARACTERS = 32
KEY_FILE = "webhook.key"


class Signer:
    """Signs requests.

    Args:
        master_key: Every secret is derived from it; its owner can sign for every endpoint.
    """

    def __init__(self, master_key: bytes) -> None:
        self._master_key = master_key

    def secret(self, webhook_id: str, rotation: int) -> str:
        """Return the secret of an endpoint after so many rotations."""
        message = f"rollforward webhook {webhook_id} {rotation}".encode()
        return "whsec_" + base64.b64encode(hmac.digest(self._master_key, message, hashlib.sha256)).decode()

    def headers(
        self, webhook_id: str, rotation: int, previous_valid_until: int, message_id: str, now: int, body: str
    ) -> Mapping[str, str]:
        """Return the headers of a body, signed `now` (nanoseconds since 1970) with every secret that is valid then."""
        rotations = [rotation] if now >= previous_valid_until else [rotation, rotation - 1]
        sent = datetime.fromtimestamp(now // 1_000_000_000, UTC)
        signatures = [Webhook(self.secret(webhook_id, number)).sign(message_id, sent, body) for number in rotations]
        return {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(now // 1_000_000_000),
            "webhook-signature": " ".join(signatures),
        }


def master_key(given: str, data: Path) -> bytes:
    """Return the given key, else that of the data directory, which is created at the first start.

    Raises:
        Rejected: INVALID_SETTING when the key is shorter than 32 characters, or the file cannot be read or written.
    """
    if given:
        return _checked(given, "ROLLFORWARD_WEBHOOK_KEY")
    file = data / KEY_FILE
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            _write(file, secrets.token_hex(32))
        return _checked(file.read_text().strip(), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(
            Kind.INVALID,
            "INVALID_SETTING",
            f"cannot read or write the webhook key: {error}. Set ROLLFORWARD_WEBHOOK_KEY or make {data} writable",
        ) from error


def _write(file: Path, key: str) -> None:
    """Write the key atomically: a partial key would change every secret."""
    draft = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(key + "\n")
        opened.flush()
        os.fsync(opened.fileno())
    try:
        os.link(draft, file)
    except FileExistsError:  # another process was faster: its key is used
        return
    finally:
        draft.unlink()


def _checked(key: str, name: str) -> bytes:
    if len(key) < MIN_KEY_CHARACTERS:
        message = f"{name} is too short: expected at least {MIN_KEY_CHARACTERS} characters, got {len(key)}"
        raise Rejected(Kind.INVALID, "INVALID_SETTING", message)
    return key.encode()
