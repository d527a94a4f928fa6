"""The records of tracking, webhooks, gates, listings, rebuilds and losses in a history.

Moments named `called` and `returned` are nanoseconds of the checker's monotonic clock; `returned` is None for a call
without a response. A `request_id` stays the same across retries.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Failure:
    """An unexpected error: where it occurred, and its traceback or text."""

    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """A run at its end: its status, and the number of points of each series in its summary.

    The SDK logs to `by_sdk` runs through its journal; they are `is_delivered` when the last flush succeeded.
    """

    run_id: str
    status: str
    counts: dict[str, int] = field(default_factory=dict)
    by_sdk: bool = False
    is_delivered: bool = False


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Consecutive points of one series, `count` from the step `first` on, sent with one request."""

    run_id: str
    key: str
    first: int
    count: int
    request_id: str = ""
    called: int = 0
    returned: int | None = None
    outcome: str = "unknown"
    reason: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True)
class PointRead:
    """The steps of a series as a query returned them, in order; `is_last` after all writes had ended."""

    run_id: str
    key: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    called: int
    returned: int
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook: the alias changes after the position `since` that it must be sent, of one model."""

    webhook_id: str
    model: str
    since: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request that an endpoint acknowledged; `is_signed` when its signature verified, `time` in nanoseconds."""

    webhook_id: str
    event_id: str
    sequence: int
    revision: int
    model: str
    alias: str
    from_version: int
    to_version: int
    time: int
    is_signed: bool


@dataclass(frozen=True, slots=True)
class Threshold:
    """A change of the gate policy in the log: the minimum score from `revision` on; None for no gate."""

    revision: int
    score: float | None


@dataclass(frozen=True, slots=True)
class GateMove:
    """A move of a gated alias to a version whose run has a score: the request and its result.

    `seen` is the revision of the newest policy that its client knew of.
    """

    client: str
    request_id: str
    version: int
    score: float
    seen: int = 0
    called: int = 0
    returned: int | None = None
    outcome: str = "unknown"
    reason: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True)
class GateEvent:
    """A move of the gated alias, or its rejection, in the log; `seen` are the scores in its evidence."""

    position: int
    request_id: str
    version: int
    is_refused: bool
    policy_revision: int
    seen: tuple[float, ...] = ()
    passed: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class EvidenceCheck:
    """The service's check of the evidence in its log: how many it recomputed, and which differ."""

    evidence: int
    unfounded: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class IndexScan:
    """A listing read page by page: the entries returned, in order.

    `known` are those that the walker had seen acknowledged before it began.
    """

    listing: str
    called: int
    returned: int
    entries: tuple[str, ...]
    known: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A rebuild of a projection at the end: the digests of its rows, or why there are none."""

    projection: str
    live: str
    rebuilt: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Loss:
    """A log that lost events, and how the services handled it.

    `last` is the revision of the last move before; `refused` says whether the start was rejected, for `reason`, and
    `kept_rows` that the rows were unchanged. Then the loss was `accepted` or the whole log restored; `steps` are the
    results of each attempt after that.
    """

    kind: str
    last: int
    refused: bool
    reason: str
    kept_rows: bool
    accepted: bool
    steps: dict[str, str] = field(default_factory=dict)
