"""MLflow's tracking and registry stores over gRPC: MLflow's own REST stores with another transport."""

from __future__ import annotations

import json
from typing import Any

from mlflow.store.model_registry.rest_store import RestStore as RestRegistryStore
from mlflow.store.tracking.rest_store import RestStore as RestTrackingStore
from mlflow.utils.proto_json_utils import parse_dict
from mlflow.utils.rest_utils import MlflowHostCreds

from rollforward.mlflow.transport import Transport


def _no_http(uri: str) -> MlflowHostCreds:
    """Return the address of requests that are sent neither over gRPC nor elsewhere: they fail at once."""
    return MlflowHostCreds(uri)


class TrackingStore(RestTrackingStore):  # type: ignore[misc]
    """The tracking store of rollforward://HOST:PORT. Raises as `Transport`."""

    def __init__(self, store_uri: str) -> None:
        super().__init__(lambda: _no_http(store_uri))
        self._transport = Transport(store_uri)

    def _call_endpoint(
        self,
        api: Any,
        json_body: str | None = None,
        endpoint: str | None = None,
        retry_timeout_seconds: float | None = None,  # noqa: ARG002 - the connection's own limit holds
        response_proto: Any = None,
    ) -> Any:
        routes = self._V3_METHOD_TO_INFO if api in self._V3_APIS else self._METHOD_TO_INFO
        known, method = routes[api]
        return _called(self._transport, method, endpoint or known, json_body, response_proto or api.Response())


class RegistryStore(RestRegistryStore):  # type: ignore[misc]
    """The model registry store of rollforward://HOST:PORT. Raises as `Transport`."""

    def __init__(self, store_uri: str) -> None:
        super().__init__(lambda: _no_http(store_uri))
        self._transport = Transport(store_uri)

    def _call_endpoint(
        self,
        api: Any,
        json_body: str,
        call_all_endpoints: bool = False,  # noqa: ARG002 - the first is answered
        extra_headers: Any = None,  # noqa: ARG002 - of other registries
    ) -> Any:
        endpoint, method = self._get_endpoint_from_method(api)
        return _called(self._transport, method, endpoint, json_body, self._get_response_from_method(api))


def _called(transport: Transport, method: str, endpoint: str, json_body: str | None, response: Any) -> Any:
    fields = transport.send(method, endpoint, json.loads(json_body) if json_body else {})
    parse_dict(js_dict=fields, message=response)
    return response
