"""The receiver of docs/webhooks.md takes what the service sends, once, and nothing else."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from services.webhooks.signing import Signer

PAGE = Path(__file__).resolve().parents[2] / "docs/webhooks.md"


def test_the_receiver_verifies_and_tells_repetitions(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - it is the page's own
    signer, body, seen = Signer(b"k" * 32), '{"type":"alias.moved","data":{"alias":"champion"}}', set[str]()
    secret, headers = signer.secret("hook", 0), dict(signer.headers("hook", 0, 0, "id", time.time_ns(), body))
    for _ in range(2):
        names["receive"](secret, headers, body, seen)
    assert capsys.readouterr().out == "alias.moved {'alias': 'champion'}\n"
    with pytest.raises(WebhookVerificationError):
        names["receive"](signer.secret("other", 0), headers, body, seen)
