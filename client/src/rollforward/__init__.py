"""rollforward: track runs, register models, move aliases, follow them, and roll back.

Every function uses the connection that `connect` made, else one made from ROLLFORWARD_URI, unless it is given another
as `connection`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rollforward import v1 as v1
    from rollforward.aliases import move_alias as move_alias
    from rollforward.aliases import move_aliases as move_aliases
    from rollforward.aliases import remove_alias as remove_alias
    from rollforward.aliases import resolve as resolve
    from rollforward.aliases import resolve_alias as resolve_alias
    from rollforward.aliases import resolve_all as resolve_all
    from rollforward.artifacts import get_manifest as get_manifest
    from rollforward.artifacts import upload as upload
    from rollforward.audit import Conditions as Conditions
    from rollforward.audit import export_events as export_events
    from rollforward.audit import list_events as list_events
    from rollforward.connection import Connection as Connection
    from rollforward.connection import close as close
    from rollforward.connection import connect as connect
    from rollforward.connection import new_request_id as new_request_id
    from rollforward.differences import AliasesDifference as AliasesDifference
    from rollforward.differences import AssignmentDifference as AssignmentDifference
    from rollforward.differences import Difference as Difference
    from rollforward.differences import MoveDifference as MoveDifference
    from rollforward.differences import VersionsDifference as VersionsDifference
    from rollforward.differences import diff_aliases as diff_aliases
    from rollforward.differences import diff_move as diff_move
    from rollforward.differences import diff_versions as diff_versions
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
    from rollforward.history import Blame as Blame
    from rollforward.history import alias_history as alias_history
    from rollforward.history import alias_intervals as alias_intervals
    from rollforward.history import blame as blame
    from rollforward.history import changes_at as changes_at
    from rollforward.labels import remove_tags as remove_tags
    from rollforward.labels import set_description as set_description
    from rollforward.labels import set_tags as set_tags
    from rollforward.models import create_model as create_model
    from rollforward.models import delete_model as delete_model
    from rollforward.models import get_model as get_model
    from rollforward.models import list_models as list_models
    from rollforward.models import rename_model as rename_model
    from rollforward.models import restore_model as restore_model
    from rollforward.models import set_registration_gate as set_registration_gate
    from rollforward.policies import list_policies as list_policies
    from rollforward.policies import remove_policy as remove_policy
    from rollforward.policies import replay_gate as replay_gate
    from rollforward.policies import set_policy as set_policy
    from rollforward.policies import try_gate as try_gate
    from rollforward.rollbacks import rollback as rollback
    from rollforward.run import Run as Run
    from rollforward.run import start_run as start_run
    from rollforward.schedules import cancel_schedule as cancel_schedule
    from rollforward.schedules import list_schedules as list_schedules
    from rollforward.schedules import schedule_move as schedule_move
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
    from rollforward.versions import copy_version as copy_version
    from rollforward.versions import delete_version as delete_version
    from rollforward.versions import get_version as get_version
    from rollforward.versions import list_versions as list_versions
    from rollforward.versions import register_model as register_model
    from rollforward.versions import restore_version as restore_version
    from rollforward.versions import set_version_status as set_version_status
    from rollforward.watching import Watch as Watch
    from rollforward.watching import watch as watch
    from rollforward.webhooks import create_webhook as create_webhook
    from rollforward.webhooks import delete_webhook as delete_webhook
    from rollforward.webhooks import get_webhook as get_webhook
    from rollforward.webhooks import get_webhook_secret as get_webhook_secret
    from rollforward.webhooks import list_webhooks as list_webhooks
    from rollforward.webhooks import replay_webhook as replay_webhook
    from rollforward.webhooks import resume_webhook as resume_webhook
    from rollforward.webhooks import rotate_webhook_secret as rotate_webhook_secret
    from rollforward.webhooks import try_webhook as try_webhook
    from rollforward.webhooks import update_webhook as update_webhook
    from rollforward.webhooks import webhook_attempts as webhook_attempts
    from rollforward.webhooks import webhook_deliveries as webhook_deliveries

_NAMES: Final = {
    "aliases": "move_alias move_aliases remove_alias resolve resolve_alias resolve_all",
    "artifacts": "get_manifest upload",
    "audit": "Conditions export_events list_events",
    "connection": "Connection close connect new_request_id",
    "differences": "AliasesDifference AssignmentDifference Difference MoveDifference VersionsDifference "
    "diff_aliases diff_move diff_versions",
    "downloads": "download",
    "errors": "AlreadyExists Conflict Forbidden InternalError InvalidRequest NotFound PreconditionFailed "
    "RollforwardError Unauthenticated Unavailable",
    "history": "Blame alias_history alias_intervals blame changes_at",
    "labels": "remove_tags set_description set_tags",
    "models": "create_model delete_model get_model list_models rename_model restore_model set_registration_gate",
    "policies": "list_policies remove_policy replay_gate set_policy try_gate",
    "rollbacks": "rollback",
    "run": "Run start_run",
    "schedules": "cancel_schedule list_schedules schedule_move",
    "series": "MetricHistory",
    "serving": "deployments",
    "system": "rebuild status",
    "tracking": "create_experiment get_experiment get_run list_experiments list_runs metric_history",
    "versions": "copy_version delete_version get_version list_versions register_model restore_version "
    "set_version_status",
    "watching": "Watch watch",
    "webhooks": "create_webhook delete_webhook get_webhook get_webhook_secret list_webhooks replay_webhook "
    "resume_webhook rotate_webhook_secret try_webhook update_webhook webhook_attempts webhook_deliveries",
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
