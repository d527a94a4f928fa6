#!/usr/bin/env bash
# standardwebhooks 1.1.0.
#
# Webhook.sign takes an aware datetime and signs its wall clock as if it were UTC: 14:00+02:00 is signed as 14:00 UTC,
# two hours off. The receiver's tolerance is five minutes, so such a request is refused as too new. Pass UTC.
#
# Seen: "14:00+02:00 signs as 14:00 UTC: True, as 12:00 UTC: False".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q --disable-pip-version-check install 'standardwebhooks==1.1.0'
"$folder/venv/bin/python" - <<'PY'
from datetime import datetime, timedelta, timezone

from standardwebhooks import Webhook

webhook = Webhook("whsec_" + "a" * 32)
east = datetime(2026, 11, 30, 14, 0, tzinfo=timezone(timedelta(hours=2)))
wall = east.replace(tzinfo=timezone.utc)
signed, as_wall, as_moment = (
    webhook.sign(msg_id="m", timestamp=time, data="{}") for time in (east, wall, east.astimezone(timezone.utc))
)
print(f"14:00+02:00 signs as 14:00 UTC: {signed == as_wall}, as 12:00 UTC: {signed == as_moment}")
assert signed == as_wall
assert signed != as_moment
PY
echo "as described"
