"""Packing of metric points into columns."""

from __future__ import annotations

import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforward import v1
from rollforward._series import pack, unpack
from rollforward.errors import InternalError

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.tuples(INT64, INT64, st.floats(allow_nan=True))), st.integers(1, 5))
def test_packed_series_unpacks_from_chunks(points: list[tuple[int, int, float]], size: int) -> None:
    chunks = []
    for start in range(0, len(points), size):
        steps, timestamps, values = zip(*points[start : start + size], strict=True)
        chunks.append(pack("loss", array("q", steps), array("q", timestamps), array("d", values)))
    history = unpack(chunks)
    assert list(history.steps) == [step for step, _, _ in points]
    assert list(history.timestamps) == [timestamp for _, timestamp, _ in points]
    assert history.values.tobytes() == array("d", [value for _, _, value in points]).tobytes()


def test_columns_are_little_endian() -> None:
    series = pack("loss", array("q", [1]), array("q", [-2]), array("d", [0.5]))
    assert (series.steps, series.timestamps) == (struct.pack("<q", 1), struct.pack("<q", -2))
    assert series.values == struct.pack("<d", 0.5)


@pytest.mark.parametrize("values", [b"", b"1234567", b"1" * 16])
def test_columns_of_different_length_are_rejected(values: bytes) -> None:
    with pytest.raises(InternalError) as refused:
        unpack([v1.Series(key="k", steps=b"1" * 8, timestamps=b"1" * 8, values=values)])
    assert refused.value.reason == "INVALID_SERIES"
