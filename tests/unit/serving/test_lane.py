"""The lane: batched answers equal lone ones, and no request hurts another."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

from services.pod.batcher import Answers, Batcher, DeadlinePassed, Outputs, QueueFull
from services.pod.models import Model
from services.pod.tensors import InvalidInput
from tests.timeouts import scaled

pytestmark = pytest.mark.busy

BOTH = ("predict", "predict_proba")


class Gated:
    """A prediction that doubles its rows, waits to be let through, and notes what it was asked."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.began = threading.Event()
        self.sizes: list[int] = []

    def __call__(self, rows: NDArray[Any], outputs: Outputs) -> Answers:
        self.sizes.append(len(rows))
        self.began.set()
        assert self.gate.wait(scaled(10))
        if np.isnan(rows).any():
            raise InvalidInput
        return dict.fromkeys(outputs, rows[:, 0] * 2)


def rows(*values: float) -> NDArray[Any]:
    """A column."""
    return np.array(values).reshape(-1, 1)


async def begin(lane: Batcher, gated: Gated) -> asyncio.Task[Answers]:
    """Submit a first request and wait until it holds the thread."""
    first = asyncio.create_task(lane.submit(rows(0.0), ("y",)))
    await asyncio.to_thread(gated.began.wait, 10)
    return first


async def test_answers_of_a_real_model_are_those_without_batching() -> None:
    features, labels = load_iris(return_X_y=True)
    model = Model(RandomForestClassifier(8, random_state=0).fit(features, labels))
    alone = model.predict(features, BOTH)
    lane = Batcher(model.predict)
    starts = range(0, len(features), 3)
    batched = await asyncio.gather(*(lane.submit(features[at : at + 3], BOTH) for at in starts))
    await lane.close()
    for name in BOTH:
        np.testing.assert_array_equal(np.concatenate([answers[name] for answers in batched]), alone[name])


async def test_what_waits_is_predicted_in_one_call() -> None:
    gated = Gated()
    lane = Batcher(gated)
    first = await begin(lane, gated)
    waiting = [asyncio.create_task(lane.submit(rows(float(n), float(n)), ("y",))) for n in range(1, 4)]
    await asyncio.sleep(0)
    gated.gate.set()
    await first
    assert [(await task)["y"].tolist() for task in waiting] == [[2.0, 2.0], [4.0, 4.0], [6.0, 6.0]]
    assert gated.sizes == [1, 6]
    await lane.close()


async def test_batches_are_bounded_and_of_one_kind() -> None:
    gated = Gated()
    lane = Batcher(gated, batch_rows=2)
    first = await begin(lane, gated)
    kinds = [("y",), ("y",), ("y",), ("z",)]
    waiting = [asyncio.create_task(lane.submit(rows(1.0), kind)) for kind in kinds]
    await asyncio.sleep(0)
    gated.gate.set()
    await asyncio.gather(first, *waiting)
    assert gated.sizes == [1, 2, 1, 1]
    await lane.close()


async def test_one_bad_request_fails_alone() -> None:
    gated = Gated()
    lane = Batcher(gated)
    first = await begin(lane, gated)
    waiting = [asyncio.create_task(lane.submit(rows(value), ("y",))) for value in (1.0, np.nan, 3.0)]
    await asyncio.sleep(0)
    gated.gate.set()
    await first
    good, bad, other = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(bad, InvalidInput)
    assert isinstance(good, dict)
    assert isinstance(other, dict)
    assert (good["y"].tolist(), other["y"].tolist()) == ([2.0], [6.0])
    await lane.close()


async def test_a_full_queue_refuses() -> None:
    gated = Gated()
    lane = Batcher(gated, queue_limit=1)
    first = await begin(lane, gated)
    second = asyncio.create_task(lane.submit(rows(1.0), ("y",)))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await lane.submit(rows(2.0), ("y",))
    gated.gate.set()
    await asyncio.gather(first, second)
    await lane.close()


async def test_expired_and_cancelled_requests_are_never_predicted() -> None:
    gated = Gated()
    lane = Batcher(gated)
    first = await begin(lane, gated)
    expired = asyncio.create_task(lane.submit(rows(1.0), ("y",), asyncio.get_running_loop().time()))
    cancelled = asyncio.create_task(lane.submit(rows(2.0), ("y",)))
    await asyncio.sleep(0)
    cancelled.cancel()
    gated.gate.set()
    await first
    with pytest.raises(DeadlinePassed):
        await expired
    await lane.close()
    assert gated.sizes == [1]


async def test_closing_answers_what_was_submitted() -> None:
    gated = Gated()
    lane = Batcher(gated)
    first = await begin(lane, gated)
    second = asyncio.create_task(lane.submit(rows(1.0), ("y",)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(lane.close())
    gated.gate.set()
    await closing
    assert first.done()
    assert (await second)["y"].tolist() == [2.0]
