"""Headers of NATS messages: read as nats-py reads them."""

from __future__ import annotations

import pytest
from nats.aio.client import Client as NatsClient

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
def test_headers_are_read_as_nats_py_reads_them(block: bytes) -> None:
    assert connection._Client._parse_header_lines(block) == NatsClient._parse_header_lines(block)


def test_nats_py_reads_headers_by_this_method() -> None:
    assert "_parse_header_lines" in NatsClient._process_headers.__code__.co_names
