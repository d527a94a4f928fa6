"""Webhook signatures as a receiver verifies them, and the master key."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from eventstore.errors import Rejected
from services.webhooks.signing import Signer, master_key

BODY = '{"reason":"größer"}'
SIGNER = Signer(b"k" * 32)


def verifies(secret: str, headers: dict[str, str], body: str = BODY) -> bool:
    """Return whether a receiver with this secret accepts a request."""
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


def signed(rotation: int = 0, previous_valid_until: int = 0) -> dict[str, str]:
    """Return the headers of a request that is sent now."""
    return dict(SIGNER.headers("hook", rotation, previous_valid_until, "id", time.time_ns(), BODY))


def test_signature_verifies_only_with_its_secret() -> None:
    assert verifies(SIGNER.secret("hook", 0), signed())
    assert not verifies(SIGNER.secret("other", 0), signed())
    assert not verifies(Signer(b"l" * 32).secret("hook", 0), signed())


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp"])
def test_tampered_request_does_not_verify(name: str) -> None:
    headers = signed()
    assert not verifies(SIGNER.secret("hook", 0), headers | {name: headers[name][:-1] + "x"})
    assert not verifies(SIGNER.secret("hook", 0), headers, BODY.replace("ö", "o"))


def test_both_secrets_verify_after_rotation_until_overlap_ends() -> None:
    old, new = SIGNER.secret("hook", 3), SIGNER.secret("hook", 4)
    assert old != new
    during, later = signed(4, time.time_ns() + 10**12), signed(4, time.time_ns())
    assert (verifies(old, during), verifies(new, during)) == (True, True)
    assert (verifies(old, later), verifies(new, later)) == (False, True)


def test_secret_has_standard_format() -> None:
    assert SIGNER.secret("hook", 0).startswith("whsec_")
    assert Webhook(SIGNER.secret("hook", 0))._whsecret


def test_master_key_is_created_once_and_private(tmp_path: Path) -> None:
    data = tmp_path / "data"
    key = master_key("", data)
    assert master_key("", data) == key
    assert len(key) >= 32
    (file,) = data.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_given_master_key_is_not_written(tmp_path: Path) -> None:
    assert master_key("g" * 32, tmp_path) == b"g" * 32
    assert not list(tmp_path.iterdir())


def test_short_or_unwritable_master_key_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "webhook.key").write_text("short")
    for given, data in (("g" * 31, tmp_path), ("", tmp_path), ("", tmp_path / "file")):
        with pytest.raises(Rejected) as refusal:
            master_key(given, data)
        assert refusal.value.reason == "INVALID_SETTING"
