"""The batcher: batched predictions equal single ones, and a bad request fails unbatched."""

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


class GatedPrediction:
    """A prediction that waits for the test, doubles its rows, and records the sizes of its batches."""

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
    """Return a matrix of one column."""
    return np.array(values).reshape(-1, 1)


async def begin(batcher: Batcher, prediction: GatedPrediction) -> asyncio.Task[Answers]:
    """Submit a first request and wait until its prediction has begun."""
    first = asyncio.create_task(batcher.submit(rows(0.0), ("y",)))
    await asyncio.to_thread(prediction.began.wait, 10)
    return first


async def test_batched_predictions_equal_single_ones() -> None:
    features, labels = load_iris(return_X_y=True)
    model = Model(RandomForestClassifier(8, random_state=0).fit(features, labels))
    unbatched = model.predict(features, BOTH)
    batcher = Batcher(model.predict)
    starts = range(0, len(features), 3)
    batched = await asyncio.gather(*(batcher.submit(features[at : at + 3], BOTH) for at in starts))
    await batcher.close()
    for name in BOTH:
        np.testing.assert_array_equal(np.concatenate([answers[name] for answers in batched]), unbatched[name])


async def test_waiting_requests_are_predicted_in_one_batch() -> None:
    prediction = GatedPrediction()
    batcher = Batcher(prediction)
    first = await begin(batcher, prediction)
    waiting = [asyncio.create_task(batcher.submit(rows(float(n), float(n)), ("y",))) for n in range(1, 4)]
    await asyncio.sleep(0)
    prediction.gate.set()
    await first
    assert [(await task)["y"].tolist() for task in waiting] == [[2.0, 2.0], [4.0, 4.0], [6.0, 6.0]]
    assert prediction.sizes == [1, 6]
    await batcher.close()


async def test_batches_are_bounded_and_have_same_outputs() -> None:
    prediction = GatedPrediction()
    batcher = Batcher(prediction, batch_rows=2)
    first = await begin(batcher, prediction)
    kinds = [("y",), ("y",), ("y",), ("z",)]
    waiting = [asyncio.create_task(batcher.submit(rows(1.0), kind)) for kind in kinds]
    await asyncio.sleep(0)
    prediction.gate.set()
    await asyncio.gather(first, *waiting)
    assert prediction.sizes == [1, 2, 1, 1]
    await batcher.close()


async def test_bad_request_fails_alone() -> None:
    prediction = GatedPrediction()
    batcher = Batcher(prediction)
    first = await begin(batcher, prediction)
    waiting = [asyncio.create_task(batcher.submit(rows(value), ("y",))) for value in (1.0, np.nan, 3.0)]
    await asyncio.sleep(0)
    prediction.gate.set()
    await first
    good, bad, other = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(bad, InvalidInput)
    assert isinstance(good, dict)
    assert isinstance(other, dict)
    assert (good["y"].tolist(), other["y"].tolist()) == ([2.0], [6.0])
    await batcher.close()


async def test_full_queue_rejects_requests() -> None:
    prediction = GatedPrediction()
    batcher = Batcher(prediction, queue_limit=1)
    first = await begin(batcher, prediction)
    second = asyncio.create_task(batcher.submit(rows(1.0), ("y",)))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await batcher.submit(rows(2.0), ("y",))
    prediction.gate.set()
    await asyncio.gather(first, second)
    await batcher.close()


async def test_expired_and_cancelled_requests_are_not_predicted() -> None:
    prediction = GatedPrediction()
    batcher = Batcher(prediction)
    first = await begin(batcher, prediction)
    expired = asyncio.create_task(batcher.submit(rows(1.0), ("y",), asyncio.get_running_loop().time()))
    cancelled = asyncio.create_task(batcher.submit(rows(2.0), ("y",)))
    await asyncio.sleep(0)
    cancelled.cancel()
    prediction.gate.set()
    await first
    with pytest.raises(DeadlinePassed):
        await expired
    await batcher.close()
    assert prediction.sizes == [1]


async def test_closing_answers_submitted_requests() -> None:
    prediction = GatedPrediction()
    batcher = Batcher(prediction)
    first = await begin(batcher, prediction)
    second = asyncio.create_task(batcher.submit(rows(1.0), ("y",)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(batcher.close())
    prediction.gate.set()
    await closing
    assert first.done()
    assert (await second)["y"].tolist() == [2.0]
