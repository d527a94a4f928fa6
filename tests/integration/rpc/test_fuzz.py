"""Whatever is sent to any method, the answer is one of the contract, and every projection can take what was written.

Each run draws anew, from a seed that is printed and can be given as ``ROLLFORWARD_FUZZ_SEED``.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import grpc
import httpx
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from rollforward import v1
from rollforward.errors import RollforwardError, from_rpc_error
from tests.integration.up import Headers, Up, new_id, up
from tests.servers.postgres import PostgresServer
from tests.timeouts import scaled

FILES = [
    f"{name}_service_pb2"
    for name in ("registry", "policy", "tracking", "logged_model", "serving", "artifact", "audit", "system", "webhook")
]
METHODS: list[MethodDescriptor] = [
    method
    for file in FILES
    for service in importlib.import_module(f"rollforward.v1.{file}").DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
ENDLESS = {"AttendRun", *(method.name for method in METHODS if method.name.startswith("Watch"))}
"""Streams that stay open until the caller hangs up."""
NEVER = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED}
SECONDS = scaled(20.0)

F = FieldDescriptor
SIGNED = {F.TYPE_INT32: 31, F.TYPE_INT64: 63}
UNSIGNED = {F.TYPE_UINT32: 32, F.TYPE_UINT64: 64}


@dataclass(frozen=True, slots=True)
class Target:
    """A system, and words that it knows."""

    system: Up
    words: list[str]


@pytest.fixture(autouse=True)
def printed_seed() -> None:
    """Tell, in the output of a test that fails, how to draw the same again."""
    print(f"ROLLFORWARD_FUZZ_SEED={SEED}")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A system of its own over each kind of database."""
    data = tmp_path_factory.mktemp("fuzz") / "data"
    with ExitStack() as stack:
        options: list[str] = []
        if request.param == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres")
            options = ["--database", stack.enter_context(server.database())]
        system = stack.enter_context(up(data, *options))
        yield Target(system, known_words(system))
        assert system.program.terminate() == 0
        assert "internal error" not in system.program.errors
        assert "projection failed" not in system.program.errors


def known_words(system: Up) -> list[str]:
    """Names of what there is, and what a database or a file system might choke on."""
    model, run_id, digest, pod_id = system.new_model(), system.new_run(), system.upload(), new_id()
    system.move(model, 1)
    pod = v1.StartPodRequest(
        pod_id=pod_id, host="h", endpoint="h:1", targets=[v1.Target(model=model, alias="champion")]
    )
    system.serving.StartPod(pod, timeout=SECONDS)
    odd = ["", "\0", "a\0b", "../x", "é", "e\u0301", "\U0001f600", "%", "'; --", "x" * 300, "f" * 32, "0", "WzFd", "1"]
    return [model, run_id, digest, pod_id, "champion", "registry", "model", "true", *odd]


def messages(descriptor: Descriptor, words: list[str], depth: int = 0) -> st.SearchStrategy[Any]:
    """Any message of a type; the deeper, the fewer parts."""

    @st.composite
    def build(draw: st.DrawFn) -> Any:
        message = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if draw(st.integers(0, 9)) < 9 - 2 * depth:
                _fill(draw, message, field, words, depth)
        return message

    return build()


def _fill(draw: st.DrawFn, message: Any, field: FieldDescriptor, words: list[str], depth: int) -> None:
    entry = field.message_type
    most = 3 if depth < 2 else 1
    if entry is not None and entry.GetOptions().map_entry:
        keys = draw(st.lists(_scalars(entry.fields_by_name["key"], words), max_size=most))
        for key in keys:
            getattr(message, field.name)[key] = draw(_scalars(entry.fields_by_name["value"], words))
    elif isinstance(getattr(message, field.name), (str, bytes, int, float)):
        setattr(message, field.name, draw(_scalars(field, words)))
    elif entry is None:
        getattr(message, field.name).extend(draw(st.lists(_scalars(field, words), max_size=most)))
    elif hasattr(getattr(message, field.name), "CopyFrom"):
        getattr(message, field.name).CopyFrom(draw(messages(entry, words, depth + 1)))
    else:
        getattr(message, field.name).extend(draw(st.lists(messages(entry, words, depth + 1), max_size=most)))


def _scalars(field: FieldDescriptor, words: list[str]) -> st.SearchStrategy[Any]:
    if field.type == F.TYPE_STRING:
        return st.one_of(st.sampled_from(words), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
    if field.type == F.TYPE_BYTES:
        return st.one_of(st.binary(max_size=24), st.sampled_from([bytes(8), bytes(16), b"\xff" * 8]))
    if field.type == F.TYPE_BOOL:
        return st.booleans()
    if field.type == F.TYPE_ENUM:
        return st.integers(-1, 6)
    if field.type in {F.TYPE_DOUBLE, F.TYPE_FLOAT}:
        return st.floats()
    bits = (SIGNED | UNSIGNED)[field.type]
    least = -(2**bits) if field.type in SIGNED else 0
    greatest = 2**bits - 1
    edges = [number for number in (0, 1, 2, 1000, 2**31, 2**63 - 1, 2**63) if number <= greatest]
    return st.one_of(st.sampled_from([*edges, least, greatest]), st.integers(least, greatest))


def call(system: Up, method: MethodDescriptor, parts: Sequence[bytes], headers: Headers = ()) -> Any:
    """The status of a call with these bytes and, when it is refused, the error that the SDK raises."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    decode = GetMessageClass(method.output_type).FromString
    channel: Any = system.channel
    seconds = 0.15 if method.name in ENDLESS else SECONDS
    try:
        if method.client_streaming:
            channel.stream_unary(path, None, decode)(iter(parts), metadata=headers, timeout=seconds)
        elif method.server_streaming:
            list(channel.unary_stream(path, None, decode)(parts[0], metadata=headers, timeout=seconds))
        else:
            channel.unary_unary(path, None, decode)(parts[0], metadata=headers, timeout=seconds)
    except grpc.RpcError as error:
        return cast("grpc.Call", error).code(), from_rpc_error(error)
    return grpc.StatusCode.OK, None


def check_is_of_the_contract(method: MethodDescriptor, code: grpc.StatusCode, error: Any, sent: Any) -> None:
    """An answer, a refusal with a reason, or a stream that stayed open."""
    assert code not in NEVER, (error, sent)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        assert method.name in ENDLESS, sent
    elif isinstance(error, RollforwardError):
        assert error.reason != code.name, (error, sent)


SEED = int(os.environ.get("ROLLFORWARD_FUZZ_SEED") or secrets.randbits(32))
ANEW = settings(
    deadline=None, database=None, phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@seed(SEED)
@settings(ANEW, max_examples=15)
@given(data=st.data())
def test_every_answer_is_one_of_the_contract(target: Target, method: MethodDescriptor, data: st.DataObject) -> None:
    request = data.draw(messages(method.input_type, target.words))
    actor = data.draw(st.sampled_from(["", "Zo%C3%AB", "%00", "%FF", "a b", "x" * 300]))
    parts = [request.SerializeToString()] * 2
    code, error = call(target.system, method, parts, (("rollforward-actor", actor),))
    check_is_of_the_contract(method, code, error, request)


NO_MESSAGE = [b"\x0a\x03\xff\xfe\xfd", b"\x0a", b"\xff" * 20, b"\x0a\x80\x80\x80\x80\x10", b"\x07", b"\x0c"]
"""A text that is not UTF-8, and what is cut off or of no wire type: of no method a message."""


def decodes(method: MethodDescriptor, data: bytes) -> bool:
    """Whether bytes are a message of a method's."""
    try:
        GetMessageClass(method.input_type).FromString(data)
    except DecodeError:
        return False
    return True


@st.composite
def mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes with some of them changed, left out, doubled or added."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, min(4, len(data) - at)))
        data[at : at + cut] = draw(st.one_of(st.binary(max_size=6), st.just(bytes(data[at : at + 2 * cut]))))
    return bytes(data)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@seed(SEED)
@settings(ANEW, max_examples=15)
@given(data=st.data())
def test_bytes_that_are_no_message_are_refused_as_such(
    target: Target, method: MethodDescriptor, data: st.DataObject
) -> None:
    whole = data.draw(messages(method.input_type, target.words)).SerializeToString()
    sent = data.draw(st.one_of(st.sampled_from(NO_MESSAGE), st.binary(max_size=60), mutated(whole)))
    code, error = call(target.system, method, [sent, sent])
    check_is_of_the_contract(method, code, error, sent)
    if not decodes(method, sent):
        assert (code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE"), sent


def test_a_later_part_of_an_upload_that_is_no_message_is_refused_as_such(target: Target) -> None:
    (method,) = (method for method in METHODS if method.client_streaming)
    first = v1.UploadBlobRequest(digest=f"sha256:{hashlib.sha256(b'x').hexdigest()}").SerializeToString()
    code, error = call(target.system, method, [first, b"\xff\xff"])
    assert (code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")


def test_every_refusal_of_bytes_is_counted(target: Target) -> None:
    def counted() -> dict[str, float]:
        families = text_string_to_metric_families(httpx.get(f"{target.system.http}/metrics", timeout=SECONDS).text)
        return {
            sample.labels["method"]: sample.value
            for family in families
            for sample in family.samples
            if sample.name == "rollforward_rpc_seconds_count" and sample.labels["code"] == "INVALID_ARGUMENT"
        }

    before = counted()
    for method in METHODS:
        call(target.system, method, [b"\xff"])
    after = counted()
    # Methods of two services may have one name.
    names = Counter(method.name for method in METHODS)
    assert {name: after[name] - before.get(name, 0) for name in names} == names


@seed(SEED)
@settings(ANEW, max_examples=5)
@given(data=st.data())
def test_every_answer_to_many_at_once_is_one_of_the_contract(target: Target, data: st.DataObject) -> None:
    calls = []
    for _ in range(40):
        method = data.draw(st.sampled_from(METHODS))
        whole = data.draw(messages(method.input_type, target.words)).SerializeToString()
        calls.append((method, data.draw(st.one_of(st.just(whole), mutated(whole)))))
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda one: call(target.system, one[0], [one[1]] * 2), calls))
    for (method, sent), (code, error) in zip(calls, answers, strict=True):
        check_is_of_the_contract(method, code, error, sent)


def test_what_was_written_is_read_by_every_projection(target: Target) -> None:
    status = target.system.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
    for projection in status.projections:
        asked = v1.RebuildProjectionRequest(name=projection.name)
        *_, last = target.system.system.RebuildProjection(asked, timeout=SECONDS)
        assert last.live_digest == last.rebuilt_digest != ""
