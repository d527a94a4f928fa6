"""Tensors: raw and typed encodings agree, and invalid input is rejected."""

import struct
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rollforward.inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from services.pod import tensors
from services.pod.tensors import InvalidInput

SHAPES = arrays.array_shapes(min_dims=1, max_dims=2, max_side=5)
DTYPES = st.sampled_from(["?", "<i1", "<i2", "<i4", "<i8", "<u1", "<u2", "<u4", "<u8", "<f4", "<f8"])
NUMBERS = DTYPES.flatmap(lambda dtype: arrays.arrays(np.dtype(dtype), SHAPES))
TEXTS = arrays.arrays(np.dtype(object), SHAPES, elements=st.text(st.characters(codec="utf-8"), max_size=8))
ARRAYS = NUMBERS | TEXTS
DATATYPES = st.sampled_from(["BOOL", "INT8", "INT32", "UINT64", "FP16", "FP32", "FP64", "BYTES", "BF16", "", "fp64"])


def round_trip(array: NDArray[Any], *, raw: bool) -> NDArray[Any]:
    """Encode an array as an output and decode it as an input."""
    response = ModelInferResponse()
    tensors.encode(response, "x", array, raw=raw)
    output = response.outputs[0]
    request = ModelInferRequest(raw_input_contents=response.raw_output_contents)
    request.inputs.add(name="x", datatype=output.datatype, shape=output.shape)
    if not raw:
        request.inputs[0].contents.CopyFrom(output.contents)
    return tensors.decode(request)["x"]


@given(ARRAYS)
def test_raw_and_typed_encodings_agree(array: NDArray[Any]) -> None:
    for decoded in (round_trip(array, raw=True), round_trip(array, raw=False)):
        assert decoded.dtype == array.dtype
        np.testing.assert_array_equal(decoded, array)


@given(
    shape=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 4), max_size=10),
    datatype=DATATYPES,
    raw=st.lists(st.binary(max_size=64), max_size=2),
    doubles=st.lists(st.floats(), max_size=4),
    small=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
    texts=st.lists(st.binary(max_size=4), max_size=4),
)
def test_random_tensor_has_declared_shape_or_is_invalid(
    shape: list[int], datatype: str, raw: list[bytes], doubles: list[float], small: list[int], texts: list[bytes]
) -> None:
    request = ModelInferRequest(raw_input_contents=raw)
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    tensor.contents.fp64_contents.extend(doubles)
    tensor.contents.int_contents.extend(small)
    tensor.contents.bytes_contents.extend(texts)
    try:
        decoded = tensors.decode(request)
    except InvalidInput:
        return
    assert decoded["x"].shape == tuple(shape)


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=4), st.binary(max_size=6))
def test_raw_texts_are_decoded_exactly(items: list[bytes], trailing: bytes) -> None:
    exact = b"".join(struct.pack("<I", len(item)) + item for item in items)
    request = ModelInferRequest(raw_input_contents=[exact + trailing])
    request.inputs.add(name="x", datatype="BYTES", shape=[len(items)])
    try:
        texts = [item.decode() for item in items]
    except UnicodeDecodeError:
        texts = []
    if trailing or not texts:
        with pytest.raises(InvalidInput):
            tensors.decode(request)
    else:
        assert tensors.decode(request)["x"].tolist() == texts


def request_of(shape: list[int], datatype: str, raw: bytes | None = None) -> ModelInferRequest:
    """Return a request with one input."""
    request = ModelInferRequest()
    request.inputs.add(name="x", datatype=datatype, shape=shape)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


@pytest.mark.parametrize(
    ("shape", "datatype", "raw"),
    [
        ([2, 2], "FP64", bytes(8)),
        ([-1, 1], "FP64", bytes(8)),
        ([2**62, 4], "FP64", b""),
        ([2**32, 2**32], "FP64", b""),
        ([0, 4], "FP64", b""),
        ([], "FP64", bytes(8)),
        ([tensors.MAX_ROWS + 1, 1], "UINT8", bytes(tensors.MAX_ROWS + 1)),
        ([1] * (tensors.MAX_RANK + 1), "FP64", bytes(8)),
        ([1], "FLOAT", bytes(8)),
        ([1], "BYTES", struct.pack("<I", 2**32 - 1)),
        ([1], "BYTES", b"\x01\x00\x00"),
        ([1], "FP16", None),
    ],
)
def test_wrong_shape_is_invalid(shape: list[int], datatype: str, raw: bytes | None) -> None:
    with pytest.raises(InvalidInput):
        tensors.decode(request_of(shape, datatype, raw))


def test_raw_and_typed_contents_together_are_invalid() -> None:
    request = request_of([1], "FP64", bytes(8))
    request.inputs[0].contents.fp64_contents.append(1.0)
    with pytest.raises(InvalidInput):
        tensors.decode(request)


def test_duplicate_input_name_is_invalid() -> None:
    request = request_of([1], "FP64", bytes(8))
    request.MergeFrom(request_of([1], "FP64", bytes(8)))
    with pytest.raises(InvalidInput):
        tensors.decode(request)


@pytest.mark.parametrize(("datatype", "value"), [("INT8", 128), ("INT16", -32769), ("UINT8", 256), ("UINT16", 65536)])
def test_element_out_of_range_is_invalid(datatype: str, value: int) -> None:
    request = request_of([1], datatype)
    contents = request.inputs[0].contents
    (contents.int_contents if datatype.startswith("INT") else contents.uint_contents).append(value)
    with pytest.raises(InvalidInput):
        tensors.decode(request)


def test_half_floats_are_decoded_raw() -> None:
    half = np.array([1.5, np.nan, np.inf], "<f2")
    np.testing.assert_array_equal(tensors.decode(request_of([3], "FP16", half.tobytes()))["x"], half)
