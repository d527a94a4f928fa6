"""Headers of NATS messages: parsed exactly as nats-py parses them."""

from __future__ import annotations

import pytest
from nats.aio.client import Client as NatsClient
from nats.protocol.parser import Parser

from eventstore.jetstream import connection

BLOCKS = [
    b"",
    b"\r\n",
    b"ce-id: 1\r\nce-actor: alice\r\n\r\n",
    b"a:b\r\na:\tc  \r\n",
    b"empty:\r\nno colon\r\nwith: a: colon\r\n",
    b" around : x\r\nin side: y\r\nin\tside: z\r\n",
    "n\u00e4me: x\r\nvalue: \u00e4\r\n".encode(),
    b"broken: \xff\xfe\r\n\xff: x\r\n",
]


@pytest.mark.parametrize("block", BLOCKS)
def test_headers_are_parsed_like_nats_py(block: bytes) -> None:
    assert connection._Client._parse_header_lines(block) == NatsClient._parse_header_lines(block)


def test_nats_py_parses_headers_by_overridden_method() -> None:
    assert "_parse_header_lines" in NatsClient._process_headers.__code__.co_names


def test_nats_py_delivers_messages_by_overridden_method() -> None:
    assert "_process_msg" in Parser.parse.__code__.co_names


def test_raw_headers_are_parsed_with_status() -> None:
    assert connection.headers_of(b"NATS/1.0\r\na: b\r\n\r\n") == {"a": "b"}
    assert connection.headers_of(b"NATS/1.0 204 EOB\r\na: b\r\n\r\n") == {"a": "b", "Status": "204"}
    assert connection.headers_of(b"NATS/1.0 404\r\n\r\n") == {"Status": "404"}
    assert connection.headers_of(b"") == {}
