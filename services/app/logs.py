"""The logs of a process: NATS, one store for each log, and what follows them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

import structlog

from eventstore import LogRewritten, Tail, Turns, end
from eventstore.jetstream import JetStreamStore, ask_monitor, ask_system_account, connect
from services.app.catalog import LOGS, SERVICES
from services.event_logs import Knowledge, open_log, refuse_losses, refuse_missing_store
from services.nats.disk_full import explain, keep_writable
from services.nats.server import EmbeddedNats, NatsServerError
from services.settings import Settings

_logger = structlog.get_logger(__name__)


async def open_logs(
    settings: Settings,
    logs: Sequence[str],
    knowledge: Knowledge,
    stack: AsyncExitStack,
    failed: asyncio.Future[None],
) -> dict[str, JetStreamStore]:
    """Start NATS if it is built in, connect to it, and open logs.

    Args:
        settings: Where NATS is.
        logs: The names of the logs.
        knowledge: What is known of them; a log that lacks some of it is not opened.
        stack: Closes all of it.
        failed: Completes with the error when NATS ends.

    Raises:
        LogLost, NatsServerError, StoreUnavailable, UnsafeStore: As `running`.
    """
    stores = await _connect(settings, logs, knowledge, stack, failed)
    await refuse_losses(list(stores.values()), knowledge, settings)
    for log, store in stores.items():
        await open_log(store, knowledge, settings, erasable=SERVICES[log].erasable)
        for warning in (await store.condition()).warnings:
            _logger.warning("acknowledged events are at risk", log=log, why=warning)
    return stores


async def _connect(
    settings: Settings,
    logs: Sequence[str],
    knowledge: Knowledge,
    stack: AsyncExitStack,
    failed: asyncio.Future[None],
) -> dict[str, JetStreamStore]:
    url, user, password = settings.nats, settings.nats_user, settings.nats_password
    why: Callable[[], str] = str  # of an outside server nothing is known
    flush = ask_monitor(settings.nats_monitor) if settings.nats_monitor else None
    if not url:
        refuse_missing_store(settings, knowledge, logs)
        nats = await stack.enter_async_context(EmbeddedNats(settings.data / "nats", port=settings.nats_port or None))
        url, user, password = nats.address.url, nats.address.user, nats.address.password
        why = partial(explain, nats)
        flush = ask_system_account(url, nats.address.system_user, nats.address.system_password)
        for background in (_fail_with(nats.failed, failed), keep_writable(nats)):
            stack.push_async_callback(end, asyncio.create_task(background))
    # Reading the past has a connection of its own: acknowledgements must not wait for it.
    client, history = [await connect(url, user or None, password or None) for _ in range(2)]
    stack.push_async_callback(client.close)
    stack.push_async_callback(history.close)
    return {log: JetStreamStore(client, log, LOGS[log], flush, history, why) for log in logs}


async def start_tail(store: JetStreamStore, turns: Turns, stack: AsyncExitStack, failed: asyncio.Future[None]) -> Tail:
    """Start to follow a log; `failed` completes with the error when the log was rewritten."""
    tail = Tail(store, turns=turns)
    await tail.start()
    stack.push_async_callback(tail.stop)
    stack.callback(asyncio.create_task(_fail_with(tail.failed, failed)).cancel)
    return tail


async def _fail_with(ending: Callable[[], Awaitable[None]], failed: asyncio.Future[None]) -> None:
    """Fail the process when its NATS server has failed, or the log that it follows was rewritten.

    After that only a new start helps: it compares the rows with the log and computes them again.
    """
    try:
        await ending()
    except (NatsServerError, LogRewritten) as error:
        if not failed.done():
            failed.set_exception(error)
    except Exception:  # noqa: BLE001 - logged where it happened; the other services continue
        return
