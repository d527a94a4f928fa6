"""rollforward: track runs, register models, move aliases, follow them, and roll back.

Every function uses the connection that `connect` made, else one made from ROLLFORWARD_URI, unless it is given another
as `connection`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rollforward import v1 as v1
    from rollforward.artifacts import get_manifest as get_manifest
    from rollforward.artifacts import upload as upload
    from rollforward.audit import list_events as list_events
    from rollforward.connection import Connection as Connection
    from rollforward.connection import close as close
    from rollforward.connection import connect as connect
    from rollforward.connection import new_request_id as new_request_id
    from rollforward.downloads import download as download
    from rollforward.errors import AlreadyExists as AlreadyExists
    from rollforward.errors import Conflict as Conflict
    from rollforward.errors import Forbidden as Forbidden
    from rollforward.errors import InternalError as InternalError
    from rollforward.errors import InvalidRequest as InvalidRequest
    from rollforward.errors import NotFound as NotFound
    from rollforward.errors import PreconditionFailed as PreconditionFailed
    from rollforward.errors import RollforwardError as RollforwardError
    from rollforward.errors import Unauthenticated as Unauthenticated
    from rollforward.errors import Unavailable as Unavailable
    from rollforward.registry import alias_history as alias_history
    from rollforward.registry import create_model as create_model
    from rollforward.registry import get_model as get_model
    from rollforward.registry import get_version as get_version
    from rollforward.registry import list_models as list_models
    from rollforward.registry import list_versions as list_versions
    from rollforward.registry import move_alias as move_alias
    from rollforward.registry import register_model as register_model
    from rollforward.registry import remove_alias as remove_alias
    from rollforward.registry import resolve as resolve
    from rollforward.registry import rollback as rollback
    from rollforward.registry import set_registration_gate as set_registration_gate
    from rollforward.run import Run as Run
    from rollforward.run import start_run as start_run
    from rollforward.series import MetricHistory as MetricHistory
    from rollforward.serving import deployments as deployments
    from rollforward.system import rebuild as rebuild
    from rollforward.system import status as status
    from rollforward.tracking import create_experiment as create_experiment
    from rollforward.tracking import get_experiment as get_experiment
    from rollforward.tracking import get_run as get_run
    from rollforward.tracking import list_experiments as list_experiments
    from rollforward.tracking import list_runs as list_runs
    from rollforward.tracking import metric_history as metric_history
    from rollforward.watching import Watch as Watch
    from rollforward.watching import watch as watch

_NAMES: Final = {
    "artifacts": "get_manifest upload",
    "audit": "list_events",
    "connection": "Connection close connect new_request_id",
    "downloads": "download",
    "errors": "AlreadyExists Conflict Forbidden InternalError InvalidRequest NotFound PreconditionFailed "
    "RollforwardError Unauthenticated Unavailable",
    "registry": "alias_history create_model get_model get_version list_models list_versions move_alias register_model "
    "remove_alias resolve rollback set_registration_gate",
    "run": "Run start_run",
    "series": "MetricHistory",
    "serving": "deployments",
    "system": "rebuild status",
    "tracking": "create_experiment get_experiment get_run list_experiments list_runs metric_history",
    "watching": "Watch watch",
}
_HOME: Final = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    # gRPC takes a tenth of a second to import: whoever only imports this package, such as a command that prints its
    # help, need not wait.
    if name == "v1":
        return import_module("rollforward.v1")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"rollforward.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "v1"})
