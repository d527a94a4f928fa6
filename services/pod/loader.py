"""From an assignment to a model in memory: download, verify, load, warm."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import stamina

from rollforward.v1 import Assignment
from services.pod import models
from services.pod.batcher import Batcher
from services.pod.cache import ArtifactCache, Fetch
from services.pod.runtime import Loaded


def patient(download: Callable[[str, Path], None], out_of_reach: type[Exception]) -> Fetch:
    """Return a download that is retried without end when it raises `out_of_reach`; each attempt in a thread."""

    async def fetch(digest: str, path: Path) -> None:
        async for attempt in stamina.retry_context(out_of_reach, attempts=None, timeout=None, wait_initial=0.2):
            with attempt:
                await asyncio.to_thread(download, digest, path)

    return fetch


class Loader:
    """Brings models into memory beside those that serve, without holding up the event loop."""

    def __init__(self, cache: ArtifactCache, options: models.Options) -> None:
        self._cache = cache
        self._options = options

    async def __call__(self, assignment: Assignment) -> Loaded:
        """Return the assignment's model, verified and warm.

        Raises whatever is wrong with it, from the download to the warm-up.
        """
        path = await self._cache.get(assignment.digest)
        model = await asyncio.to_thread(models.load, path, self._options)
        lane = Batcher(model.predict)
        try:
            for rows in models.warm_up_batches(model, path):
                await lane.submit(rows, tuple(model.outputs))
        except BaseException:  # a load that is cancelled closes its batcher too
            await lane.close()
            raise
        return Loaded(assignment.digest, model, lane)
