"""A constant stream of real predictions: held-out rows over the Open Inference Protocol, and who answered each."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from rollforward.inference import open_inference_pb2 as oip
from rollforward.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub

CONNECTIONS = 3
PER_SECOND = 40  # requests on each connection
ROWS = 8  # in each request
DEADLINE = 5.0

_CHANNEL = (
    # Channels of one process would share one connection.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's fate: when it was answered (perf_counter), by which version, and how many rows were right."""

    received: float
    version: str
    right: int
    failure: str = ""


class Load:
    """Clients, each with a connection of its own, that ask from entry to exit."""

    def __init__(self, endpoint: str, model: str, rows: NDArray[Any], labels: NDArray[Any]) -> None:
        self._endpoint = endpoint
        self._model = model
        self._rows = rows
        self._labels = labels
        self._stopping = threading.Event()
        self.answers: list[list[Answer]] = [[] for _ in range(CONNECTIONS)]
        """For each connection, in order."""
        self._threads = [threading.Thread(target=self._ask, args=(into,), daemon=True) for into in self.answers]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def all_answers(self) -> list[Answer]:
        """Those of all connections, in the order of arrival."""
        return sorted(itertools.chain.from_iterable(map(tuple, self.answers)), key=lambda answer: answer.received)

    def has_settled(self, version: str, count: int) -> bool:
        """Whether the last `count` answers on each connection are of a version, or one failed."""
        return any(answer.failure for answer in self.all_answers) or all(
            len(answers) >= count and {answer.version for answer in answers[-count:]} == {version}
            for answers in map(tuple, self.answers)
        )

    def _ask(self, into: list[Answer]) -> None:
        with grpc.insecure_channel(self._endpoint, options=_CHANNEL) as channel:
            stub = GRPCInferenceServiceStub(channel)
            starts = itertools.cycle(range(0, len(self._rows) - ROWS, ROWS))
            due = time.monotonic()
            while not self._stopping.wait(max(0.0, due - time.monotonic())):
                into.append(self._predict(stub, next(starts)))
                due = max(due + 1 / PER_SECOND, time.monotonic() - 1)

    def _predict(self, stub: GRPCInferenceServiceStub, start: int) -> Answer:
        rows = np.ascontiguousarray(self._rows[start : start + ROWS], dtype="<f8")
        request = oip.ModelInferRequest(model_name=self._model, raw_input_contents=[rows.tobytes()])
        request.inputs.add(name="input", datatype="FP64", shape=rows.shape)
        try:
            response = stub.ModelInfer(request, timeout=DEADLINE)
            predicted = _read(response, len(rows))
        except (grpc.RpcError, ValueError) as error:
            return Answer(time.perf_counter(), "", 0, _in_brief(error))
        right = int((predicted == self._labels[start : start + ROWS]).sum())
        return Answer(time.perf_counter(), f"v{response.model_version}", right)


def _read(response: oip.ModelInferResponse, rows: int) -> NDArray[Any]:
    (output,) = response.outputs
    if (output.name, output.datatype, list(output.shape)) != ("predict", "INT64", [rows]):
        raise ValueError(
            f"expected a label for each of {rows} rows, got {output.name} {output.datatype} {list(output.shape)}"
        )
    return np.frombuffer(response.raw_output_contents[0], dtype="<i8")


def _in_brief(error: Exception) -> str:
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)


@dataclass(frozen=True, slots=True)
class Turn:
    """A stretch of answers by one version: how many, and the share of their rows that were right."""

    version: str
    requests: int
    share_right: float


def turns(connections: Iterable[Iterable[Answer]]) -> list[Turn]:
    """Return the stretches in their order, those of all connections taken together."""
    stretches = [
        [(version, list(answers)) for version, answers in itertools.groupby(each, key=lambda answer: answer.version)]
        for each in connections
    ]
    together = []
    for parts in itertools.zip_longest(*stretches, fillvalue=("", [])):
        answers = [answer for _, part in parts for answer in part]
        share = sum(answer.right for answer in answers) / (len(answers) * ROWS)
        together.append(Turn("/".join(sorted({version for version, _ in parts if version})), len(answers), share))
    return together
