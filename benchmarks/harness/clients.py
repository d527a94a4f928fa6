"""The connection of a process to a system, given its endpoint."""

from __future__ import annotations

from typing import cast

from benchmarks.harness.contract import Client, Endpoint


def connect(endpoint: Endpoint, actor: str = "bench") -> Client:
    """Return a new connection."""
    # A client process loads what its own system needs and no more.
    match endpoint.kind:
        case "rollforward":
            from benchmarks.systems.ours import SdkClient  # noqa: PLC0415

            return SdkClient(endpoint, actor)
        case "rollforward-rest":
            from benchmarks.systems.rest import RestClient  # noqa: PLC0415

            return RestClient(endpoint)
        case "mlflow":
            from benchmarks.systems.mlflow import HttpClient  # noqa: PLC0415

            return HttpClient(endpoint)
        case "limit":
            from benchmarks.systems.limit import BareClient  # noqa: PLC0415

            return cast("Client", BareClient(endpoint))  # asked for nothing but what it can do
        case "bare":
            from benchmarks.systems.bare import BareServiceClient  # noqa: PLC0415

            return cast("Client", BareServiceClient(endpoint))  # as above
        case _:
            raise ValueError(endpoint.kind)
