"""The client, with an attribute for each kind of item."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self

from rollforward._transport.connection import DEFAULT_TIMEOUT, Connection
from rollforward._transport.default import set_default_connection

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from rollforward.downloads import Artifacts
    from rollforward.operations.audit import Audit
    from rollforward.operations.deployments import Deployments
    from rollforward.operations.system import System
    from rollforward.operations.webhooks import Webhooks
    from rollforward.registry.aliases import Aliases
    from rollforward.registry.diff import Differences
    from rollforward.registry.models import Models
    from rollforward.registry.policies import Policies
    from rollforward.registry.schedules import Schedules
    from rollforward.registry.versions import Versions
    from rollforward.tracking.experiments import Experiments
    from rollforward.tracking.logged_models import LoggedModels
    from rollforward.tracking.metrics import Metrics
    from rollforward.tracking.runs import Runs


class Client:
    """A client of the services; safe for use by many threads.

    Reads see this client's own writes: it remembers the highest position of each log and sends it along. If results may
    be stale, because a service's rows do not follow their log, it warns once (RollforwardWarning). gRPC does not
    survive a fork: create another client in a child process.

    Attributes:
        connection: The channels to the services, and their raw gRPC stubs.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        actor: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        correlation_id: str = "",
        read_at_head: bool = False,
    ) -> None:
        """Create a client without connecting.

        Args:
            address: "HOST:PORT", or "tracking=HOST:PORT,registry=HOST:PORT,..."; default ROLLFORWARD_URI, else
                localhost:50051.
            actor: The actor of changes; default ROLLFORWARD_ACTOR, else the operating system's user.
            timeout: Seconds for each call, with all its retries.
            correlation_id: An id for every event that this client causes; printable ASCII.
            read_at_head: Whether reads include everything written before they are sent, for a round trip from the
                service to its log. Otherwise, reads may lag behind other writers by up to 0.2 s.

        Raises:
            InvalidRequest: INVALID_ADDRESS, INVALID_TIMEOUT, INVALID_CORRELATION_ID.
        """
        self.connection = Connection(
            address, actor=actor, timeout=timeout, correlation_id=correlation_id, read_at_head=read_at_head
        )

    # Imported at their first use: a command that moves an alias does not load the code for runs.

    @cached_property
    def experiments(self) -> Experiments:
        """Experiments."""
        from rollforward.tracking.experiments import Experiments  # noqa: PLC0415

        return Experiments(self.connection)

    @cached_property
    def runs(self) -> Runs:
        """Runs: start, find, compare, watch and change them."""
        from rollforward.tracking.runs import Runs  # noqa: PLC0415

        return Runs(self.connection)

    @cached_property
    def metrics(self) -> Metrics:
        """Metric points of runs."""
        from rollforward.tracking.metrics import Metrics  # noqa: PLC0415

        return Metrics(self.connection)

    @cached_property
    def logged_models(self) -> LoggedModels:
        """Logged models."""
        from rollforward.tracking.logged_models import LoggedModels  # noqa: PLC0415

        return LoggedModels(self.connection)

    @cached_property
    def artifacts(self) -> Artifacts:
        """Artifacts: upload and download trees of files."""
        from rollforward.downloads import Artifacts  # noqa: PLC0415

        return Artifacts(self.connection)

    @cached_property
    def models(self) -> Models:
        """Registered models."""
        from rollforward.registry.models import Models  # noqa: PLC0415

        return Models(self.connection)

    @cached_property
    def versions(self) -> Versions:
        """Versions of registered models."""
        from rollforward.registry.versions import Versions  # noqa: PLC0415

        return Versions(self.connection)

    @cached_property
    def aliases(self) -> Aliases:
        """Aliases: move, resolve, watch and roll them back."""
        from rollforward.registry.aliases import Aliases  # noqa: PLC0415

        return Aliases(self.connection)

    @cached_property
    def schedules(self) -> Schedules:
        """Scheduled moves of aliases."""
        from rollforward.registry.schedules import Schedules  # noqa: PLC0415

        return Schedules(self.connection)

    @cached_property
    def policies(self) -> Policies:
        """Policies and gates."""
        from rollforward.registry.policies import Policies  # noqa: PLC0415

        return Policies(self.connection)

    @cached_property
    def diff(self) -> Differences:
        """Comparisons of aliases at two points in time, of versions, and of moves."""
        from rollforward.registry.diff import Differences  # noqa: PLC0415

        return Differences(self.connection)

    @cached_property
    def deployments(self) -> Deployments:
        """Aliases that pods follow, and what the pods serve."""
        from rollforward.operations.deployments import Deployments  # noqa: PLC0415

        return Deployments(self.connection)

    @cached_property
    def webhooks(self) -> Webhooks:
        """Endpoints that receive changes of aliases over HTTP."""
        from rollforward.operations.webhooks import Webhooks  # noqa: PLC0415

        return Webhooks(self.connection)

    @cached_property
    def audit(self) -> Audit:
        """Recorded events of all logs."""
        from rollforward.operations.audit import Audit  # noqa: PLC0415

        return Audit(self.connection)

    @cached_property
    def system(self) -> System:
        """Processes, logs and projections."""
        from rollforward.operations.system import System  # noqa: PLC0415

        return System(self.connection)

    @property
    def address(self) -> str:
        """The address of the services."""
        return self.connection.address

    @property
    def actor(self) -> str:
        """The actor of this client's changes."""
        return self.connection.actor

    @property
    def timeout(self) -> float:
        """Seconds for each call, with all its retries."""
        return self.connection.timeout

    @property
    def positions(self) -> Mapping[str, int]:
        """The highest position that this client has seen, by log."""
        return self.connection.positions

    def epoch(self, log: str) -> int:
        """Return the epoch in which this client read revisions of a log; 0 for the first, or if unknown.

        It changes only after LOG_EPOCH_CHANGED was raised.
        """
        return self.connection.epoch(log)

    def assume_epoch(self, epoch: int) -> None:
        """Treat the caller's revisions as read in an epoch, whichever client read them."""
        self.connection.assume_epoch(epoch)

    def close(self) -> None:
        """Close the channels. Calls in progress fail as cancelled. Closing twice is harmless."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.address!r}, actor={self.actor!r})"


def connect(
    address: str | None = None,
    *,
    actor: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    correlation_id: str = "",
    read_at_head: bool = False,
) -> Client:
    """Create a client, and make it the default for the functions of this package.

    See Client for the arguments.

    Raises:
        InvalidRequest: INVALID_ADDRESS, INVALID_TIMEOUT, INVALID_CORRELATION_ID.
    """
    client = Client(address, actor=actor, timeout=timeout, correlation_id=correlation_id, read_at_head=read_at_head)
    set_default_connection(client.connection)
    return client
