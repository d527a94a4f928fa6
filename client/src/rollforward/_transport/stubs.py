"""The raw stubs of the services, over shared channels that are opened at their first use."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Self

from rollforward import v1
from rollforward._transport.address import parse_address
from rollforward._transport.channel import open_channel
from rollforward.errors import InvalidRequest

if TYPE_CHECKING:
    from types import TracebackType

    import grpc


class Stubs:
    """The raw stubs of the services."""

    def __init__(self, address: str) -> None:
        """Prepare the stubs without connecting. Raises InvalidRequest (INVALID_ADDRESS)."""
        self.address = address
        self.endpoints = parse_address(address)
        """The endpoint of each service, HOST:PORT, by the service's name."""
        self._channels: dict[str, grpc.Channel] = {}
        self._closed = False
        self._channels_lock = threading.Lock()

    @cached_property
    def tracking(self) -> v1.TrackingServiceStub:
        """Return the raw stub of the tracking service."""
        return v1.TrackingServiceStub(self._channel("tracking"))

    @cached_property
    def logged_models(self) -> v1.LoggedModelServiceStub:
        """Return the raw stub of the logged model service, which is part of tracking."""
        return v1.LoggedModelServiceStub(self._channel("tracking"))

    @cached_property
    def artifacts(self) -> v1.ArtifactServiceStub:
        """Return the raw stub of the artifact service, which is part of tracking."""
        return v1.ArtifactServiceStub(self._channel("tracking"))

    @cached_property
    def mlflow(self) -> v1.MlflowServiceStub:
        """Return the raw stub of MLflow's REST API, which every process answers for its services."""
        return v1.MlflowServiceStub(self._channel("tracking"))

    @cached_property
    def registry(self) -> v1.RegistryServiceStub:
        """Return the raw stub of the registry."""
        return v1.RegistryServiceStub(self._channel("registry"))

    @cached_property
    def policies(self) -> v1.PolicyServiceStub:
        """Return the raw stub of the policy service, which is part of the registry."""
        return v1.PolicyServiceStub(self._channel("registry"))

    @cached_property
    def serving(self) -> v1.ServingServiceStub:
        """Return the raw stub of the serving service."""
        return v1.ServingServiceStub(self._channel("serving"))

    @cached_property
    def audit(self) -> v1.AuditServiceStub:
        """Return the raw stub of the audit service."""
        return v1.AuditServiceStub(self._channel("audit"))

    @cached_property
    def webhooks(self) -> v1.WebhookServiceStub:
        """Return the raw stub of the webhooks service."""
        return v1.WebhookServiceStub(self._channel("webhooks"))

    @cached_property
    def systems(self) -> tuple[v1.SystemServiceStub, ...]:
        """Return the raw stub of the system service of each process in the address."""
        services = {endpoint: service for service, endpoint in self.endpoints.items()}
        return tuple(v1.SystemServiceStub(self._channel(service)) for service in services.values())

    def close(self) -> None:
        """Close the channels. Pending calls fail as cancelled. Closing them again is harmless."""
        with self._channels_lock:
            self._closed = True
            channels = list(self._channels.values())
            self._channels.clear()
        for channel in channels:
            channel.close()

    def raise_if_closed(self) -> None:
        """Raise InvalidRequest (CONNECTION_CLOSED) after close()."""
        if self._closed:
            raise InvalidRequest("CONNECTION_CLOSED", "client is closed: create another one")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _channel(self, service: str) -> grpc.Channel:
        endpoint = self.endpoints.get(service)
        if endpoint is None:
            message = f"no {service} service in address {self.address!r}: add {service}=HOST:PORT"
            raise InvalidRequest("SERVICE_UNKNOWN", message, {"service": service})
        with self._channels_lock:
            self.raise_if_closed()
            if endpoint not in self._channels:
                self._channels[endpoint] = open_channel(endpoint)
            return self._channels[endpoint]
