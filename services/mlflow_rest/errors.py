"""Errors in MLflow's form: an error code, a message, and the HTTP status that belongs to the code."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from services.rpc.local import CallFailed

HTTP_STATUSES: Mapping[str, int] = {
    "BAD_REQUEST": 400,
    "INVALID_PARAMETER_VALUE": 400,
    "RESOURCE_ALREADY_EXISTS": 400,
    "PERMISSION_DENIED": 403,
    "ENDPOINT_NOT_FOUND": 404,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "RESOURCE_CONFLICT": 409,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "INTERNAL_ERROR": 500,
    "NOT_IMPLEMENTED": 501,
    "TEMPORARILY_UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""The HTTP status of each error code that is used here."""

_CODES: Mapping[grpc.StatusCode, str] = {
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_PARAMETER_VALUE",
    grpc.StatusCode.NOT_FOUND: "RESOURCE_DOES_NOT_EXIST",
    grpc.StatusCode.ALREADY_EXISTS: "RESOURCE_ALREADY_EXISTS",
    grpc.StatusCode.FAILED_PRECONDITION: "INVALID_PARAMETER_VALUE",
    grpc.StatusCode.ABORTED: "RESOURCE_CONFLICT",
    grpc.StatusCode.UNIMPLEMENTED: "NOT_IMPLEMENTED",
    grpc.StatusCode.UNAVAILABLE: "TEMPORARILY_UNAVAILABLE",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "REQUEST_LIMIT_EXCEEDED",
    grpc.StatusCode.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
    grpc.StatusCode.PERMISSION_DENIED: "PERMISSION_DENIED",
}
_BY_REASON: Mapping[str, str] = {
    **dict.fromkeys(("GATE_FAILED", "REASON_REQUIRED"), "PERMISSION_DENIED"),  # of policies
    "ALIAS_NOT_FOUND": "INVALID_PARAMETER_VALUE",
}
"""The error codes of reasons that MLflow answers differently from the others of their status."""


class MlflowError(Exception):
    """A request that is answered with an error.

    Attributes:
        error_code: MLflow's name of the error, a key of `HTTP_STATUSES`.
    """

    def __init__(self, error_code: str, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return HTTP_STATUSES[self.error_code]

    def body(self) -> dict[str, str]:
        """Return the JSON that MLflow's clients read."""
        return {"error_code": self.error_code, "message": str(self)}


def invalid(message: str) -> MlflowError:
    """Return the error of a parameter with a value that is not allowed."""
    return MlflowError("INVALID_PARAMETER_VALUE", message)


def not_found(message: str) -> MlflowError:
    """Return the error of something that does not exist."""
    return MlflowError("RESOURCE_DOES_NOT_EXIST", message)


def error_of(failed: CallFailed) -> MlflowError:
    """Return the error of a failed call; the reason of our error table is added to its message."""
    code = _BY_REASON.get(failed.reason) or _CODES.get(failed.code, "INTERNAL_ERROR")
    message = f"{failed} ({failed.reason})" if failed.reason else str(failed)
    return MlflowError(code, message)
