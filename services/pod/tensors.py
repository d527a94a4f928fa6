"""Tensors of the Open Inference Protocol to numpy arrays and back, raw or typed; nothing from the wire is trusted."""

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollforward.inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse

MAX_ROWS = 100_000  # of one request
MAX_RANK = 8

_DTYPES = {
    "BOOL": np.dtype("bool"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype("object"),
}
_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_WIDE = {"i": np.dtype("i8"), "u": np.dtype("u8")}  # what a field of small integers can hold
_LENGTH = struct.Struct("<I")


class InvalidInput(ValueError):
    """The request's tensors cannot be read, or do not fit the model."""


def decode(request: ModelInferRequest) -> dict[str, NDArray[Any]]:
    """Return the request's inputs by name, in their order; BYTES become `str` in arrays of objects.

    Raises InvalidInput: no inputs, a name given twice, raw and typed contents mixed, an unknown datatype, a shape that
    is empty or too large, elements that do not fill the shape or do not fit the datatype.
    """
    raw = request.raw_input_contents
    if not request.inputs:
        raise InvalidInput("no inputs: expected one or more")
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(f"invalid raw contents: expected {len(request.inputs)}, one for each input, got {len(raw)}")
    if raw and any(tensor.contents.ByteSize() for tensor in request.inputs):
        raise InvalidInput("both raw and typed contents: expected only one of them")
    arrays: dict[str, NDArray[Any]] = {}
    for index, tensor in enumerate(request.inputs):
        if tensor.name in arrays:
            raise InvalidInput(f"duplicate input {tensor.name!r}")
        arrays[tensor.name] = _decode_one(tensor, raw[index] if raw else None)
    return arrays


def _decode_one(tensor: ModelInferRequest.InferInputTensor, raw: bytes | None) -> NDArray[Any]:
    if tensor.datatype not in _DTYPES:
        raise InvalidInput(f"input {tensor.name!r} has the unknown datatype {tensor.datatype!r}")
    size = _size(tensor)
    flat: NDArray[Any] = _from_typed(tensor, size) if raw is None else _from_raw(tensor, raw, size)
    return flat.reshape(tuple(tensor.shape))


def _size(tensor: ModelInferRequest.InferInputTensor) -> int:
    shape = tensor.shape
    if not 1 <= len(shape) <= MAX_RANK or min(shape) < 1:
        raise InvalidInput(
            f"input {tensor.name!r} has the shape {list(shape)}: expected one or more dimensions of at least 1"
        )
    if shape[0] > MAX_ROWS:
        raise InvalidInput(f"input {tensor.name!r} has {shape[0]} rows: expected at most {MAX_ROWS}")
    return math.prod(shape)


def _wrong_size(tensor: ModelInferRequest.InferInputTensor, size: int) -> InvalidInput:
    return InvalidInput(f"input {tensor.name!r}: its contents are not the {size} elements of its shape")


def _from_raw(tensor: ModelInferRequest.InferInputTensor, raw: bytes, size: int) -> NDArray[Any]:
    if tensor.datatype == "BYTES":
        return _strings(tensor, _split(tensor, raw, size))
    dtype = _DTYPES[tensor.datatype]
    if len(raw) != size * dtype.itemsize:
        raise _wrong_size(tensor, size)
    if dtype.kind == "b":
        return np.frombuffer(raw, np.uint8).astype(np.bool_)
    return np.frombuffer(raw, dtype)


def _split(tensor: ModelInferRequest.InferInputTensor, raw: bytes, size: int) -> list[bytes]:
    items: list[bytes] = []
    at = 0
    while at < len(raw) and len(items) < size:
        if at + _LENGTH.size > len(raw):
            raise _wrong_size(tensor, size)
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        items.append(raw[at : at + length])
        at += length
    if at != len(raw) or len(items) != size:
        raise _wrong_size(tensor, size)
    return items


def _from_typed(tensor: ModelInferRequest.InferInputTensor, size: int) -> NDArray[Any]:
    field = _FIELDS.get(tensor.datatype)
    if field is None:
        raise InvalidInput(f"input {tensor.name!r}: expected {tensor.datatype} in raw contents")
    values: Sequence[Any] = getattr(tensor.contents, field)
    if len(values) != size:
        raise _wrong_size(tensor, size)
    if tensor.datatype == "BYTES":
        return _strings(tensor, values)
    dtype = _DTYPES[tensor.datatype]
    wide = np.fromiter(values, _WIDE.get(dtype.kind, dtype), size)
    narrow = wide.astype(dtype)
    if dtype.kind in _WIDE and not np.array_equal(narrow, wide):
        raise InvalidInput(f"input {tensor.name!r} has an element out of the range of {tensor.datatype}")
    return narrow


def _strings(tensor: ModelInferRequest.InferInputTensor, items: Sequence[bytes]) -> NDArray[Any]:
    array = np.empty(len(items), dtype=object)
    try:
        array[:] = [item.decode() for item in items]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"input {tensor.name!r} has an element that is not UTF-8") from error
    return array


def datatype(dtype: np.dtype[Any]) -> str:
    """Return the protocol's name of a numpy type; text and objects are BYTES."""
    return next((name for name, known in _DTYPES.items() if known == dtype), "BYTES")


def encode(response: ModelInferResponse, name: str, array: NDArray[Any], *, raw: bool) -> None:
    """Add an output to the response, as raw or as typed contents."""
    kind = datatype(array.dtype)
    output = response.outputs.add(name=name, datatype=kind, shape=array.shape)
    flat = array.ravel()
    if kind == "BYTES":
        items = [str(item).encode() for item in flat]
        if raw:
            response.raw_output_contents.append(b"".join(_LENGTH.pack(len(item)) + item for item in items))
        else:
            output.contents.bytes_contents.extend(items)
    elif raw:
        response.raw_output_contents.append(flat.astype(_DTYPES[kind], copy=False).tobytes())
    else:
        getattr(output.contents, _FIELDS[kind]).extend(flat.tolist())
