"""rollforward: track runs, register models, move aliases, follow them, and roll back.

Every function uses the connection that `connect` made, else one made from ROLLFORWARD_URI, unless it is given another
as `connection`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    __version__: str

    from rollforward import v1 as v1
    from rollforward._artifacts.trees import collect_garbage as collect_garbage
    from rollforward._artifacts.trees import get_manifest as get_manifest
    from rollforward._artifacts.trees import upload as upload
    from rollforward._journal.sync import Synced as Synced
    from rollforward._journal.sync import sync as sync
    from rollforward._series import MetricHistory as MetricHistory
    from rollforward._transport.connection import Connection as Connection
    from rollforward._transport.connection import close as close
    from rollforward._transport.connection import connect as connect
    from rollforward._transport.connection import new_request_id as new_request_id
    from rollforward.downloads import download as download
    from rollforward.downloads import list_files as list_files
    from rollforward.errors import AlreadyExists as AlreadyExists
    from rollforward.errors import Conflict as Conflict
    from rollforward.errors import Forbidden as Forbidden
    from rollforward.errors import InternalError as InternalError
    from rollforward.errors import InvalidRequest as InvalidRequest
    from rollforward.errors import NotFound as NotFound
    from rollforward.errors import PreconditionFailed as PreconditionFailed
    from rollforward.errors import RollforwardError as RollforwardError
    from rollforward.errors import RollforwardWarning as RollforwardWarning
    from rollforward.errors import Unauthenticated as Unauthenticated
    from rollforward.errors import Unavailable as Unavailable
    from rollforward.operations.audit import Conditions as Conditions
    from rollforward.operations.audit import export_events as export_events
    from rollforward.operations.audit import list_events as list_events
    from rollforward.operations.deployments import deployments as deployments
    from rollforward.operations.system import rebuild as rebuild
    from rollforward.operations.system import snapshot as snapshot
    from rollforward.operations.system import status as status
    from rollforward.operations.webhooks import create_webhook as create_webhook
    from rollforward.operations.webhooks import delete_webhook as delete_webhook
    from rollforward.operations.webhooks import get_webhook as get_webhook
    from rollforward.operations.webhooks import list_webhooks as list_webhooks
    from rollforward.operations.webhooks import replay_webhook as replay_webhook
    from rollforward.operations.webhooks import resume_webhook as resume_webhook
    from rollforward.operations.webhooks import rotate_webhook_secret as rotate_webhook_secret
    from rollforward.operations.webhooks import try_webhook as try_webhook
    from rollforward.operations.webhooks import update_webhook as update_webhook
    from rollforward.operations.webhooks import webhook_attempts as webhook_attempts
    from rollforward.operations.webhooks import webhook_deliveries as webhook_deliveries
    from rollforward.registry.aliases import move_alias as move_alias
    from rollforward.registry.aliases import move_alias_response as move_alias_response
    from rollforward.registry.aliases import move_aliases as move_aliases
    from rollforward.registry.aliases import remove_alias as remove_alias
    from rollforward.registry.aliases import resolve as resolve
    from rollforward.registry.aliases import resolve_alias as resolve_alias
    from rollforward.registry.aliases import resolve_all as resolve_all
    from rollforward.registry.diff import AliasesDifference as AliasesDifference
    from rollforward.registry.diff import AssignmentDifference as AssignmentDifference
    from rollforward.registry.diff import Difference as Difference
    from rollforward.registry.diff import MoveDifference as MoveDifference
    from rollforward.registry.diff import VersionsDifference as VersionsDifference
    from rollforward.registry.diff import diff_aliases as diff_aliases
    from rollforward.registry.diff import diff_move as diff_move
    from rollforward.registry.diff import diff_versions as diff_versions
    from rollforward.registry.history import Blame as Blame
    from rollforward.registry.history import alias_history as alias_history
    from rollforward.registry.history import alias_intervals as alias_intervals
    from rollforward.registry.history import blame as blame
    from rollforward.registry.history import changes_at as changes_at
    from rollforward.registry.labels import remove_tags as remove_tags
    from rollforward.registry.labels import set_description as set_description
    from rollforward.registry.labels import set_tags as set_tags
    from rollforward.registry.models import create_model as create_model
    from rollforward.registry.models import delete_model as delete_model
    from rollforward.registry.models import get_model as get_model
    from rollforward.registry.models import list_models as list_models
    from rollforward.registry.models import rename_model as rename_model
    from rollforward.registry.models import restore_model as restore_model
    from rollforward.registry.models import set_registration_gate as set_registration_gate
    from rollforward.registry.policies import check_evidence as check_evidence
    from rollforward.registry.policies import list_policies as list_policies
    from rollforward.registry.policies import remove_policy as remove_policy
    from rollforward.registry.policies import replay_gate as replay_gate
    from rollforward.registry.policies import set_policy as set_policy
    from rollforward.registry.policies import try_gate as try_gate
    from rollforward.registry.rollback import rollback as rollback
    from rollforward.registry.schedules import cancel_schedule as cancel_schedule
    from rollforward.registry.schedules import list_schedules as list_schedules
    from rollforward.registry.schedules import schedule_move as schedule_move
    from rollforward.registry.versions import copy_version as copy_version
    from rollforward.registry.versions import delete_version as delete_version
    from rollforward.registry.versions import get_version as get_version
    from rollforward.registry.versions import list_versions as list_versions
    from rollforward.registry.versions import register_model as register_model
    from rollforward.registry.versions import restore_version as restore_version
    from rollforward.registry.versions import set_version_status as set_version_status
    from rollforward.registry.watch_aliases import Watch as Watch
    from rollforward.registry.watch_aliases import watch as watch
    from rollforward.tracking.compare import Compared as Compared
    from rollforward.tracking.compare import ComparedMetric as ComparedMetric
    from rollforward.tracking.compare import RunsComparison as RunsComparison
    from rollforward.tracking.compare import compare_runs as compare_runs
    from rollforward.tracking.compare import side_by_side as side_by_side
    from rollforward.tracking.experiments import create_experiment as create_experiment
    from rollforward.tracking.experiments import delete_experiment as delete_experiment
    from rollforward.tracking.experiments import get_experiment as get_experiment
    from rollforward.tracking.experiments import list_experiments as list_experiments
    from rollforward.tracking.experiments import remove_experiment_tags as remove_experiment_tags
    from rollforward.tracking.experiments import rename_experiment as rename_experiment
    from rollforward.tracking.experiments import restore_experiment as restore_experiment
    from rollforward.tracking.experiments import set_experiment_tags as set_experiment_tags
    from rollforward.tracking.live_run.run import Run as Run
    from rollforward.tracking.live_run.run import current_run as current_run
    from rollforward.tracking.live_run.start import resume_run as resume_run
    from rollforward.tracking.live_run.start import start_run as start_run
    from rollforward.tracking.logged_models import create_logged_model as create_logged_model
    from rollforward.tracking.logged_models import delete_logged_model as delete_logged_model
    from rollforward.tracking.logged_models import finalize_logged_model as finalize_logged_model
    from rollforward.tracking.logged_models import get_logged_model as get_logged_model
    from rollforward.tracking.logged_models import log_logged_model_artifact as log_logged_model_artifact
    from rollforward.tracking.logged_models import log_logged_model_params as log_logged_model_params
    from rollforward.tracking.logged_models import remove_logged_model_tags as remove_logged_model_tags
    from rollforward.tracking.logged_models import restore_logged_model as restore_logged_model
    from rollforward.tracking.logged_models import search_logged_models as search_logged_models
    from rollforward.tracking.logged_models import set_logged_model_tags as set_logged_model_tags
    from rollforward.tracking.metrics import MetricIntervals as MetricIntervals
    from rollforward.tracking.metrics import metric_history as metric_history
    from rollforward.tracking.metrics import metric_intervals as metric_intervals
    from rollforward.tracking.metrics import metric_points as metric_points
    from rollforward.tracking.run_changes import apply_change as apply_change
    from rollforward.tracking.run_changes import points_of as points_of
    from rollforward.tracking.run_lookup import find_run as find_run
    from rollforward.tracking.runs import delete_run as delete_run
    from rollforward.tracking.runs import describe_run as describe_run
    from rollforward.tracking.runs import get_run as get_run
    from rollforward.tracking.runs import log_input as log_input
    from rollforward.tracking.runs import log_output as log_output
    from rollforward.tracking.runs import remove_run_tags as remove_run_tags
    from rollforward.tracking.runs import rename_run as rename_run
    from rollforward.tracking.runs import restore_run as restore_run
    from rollforward.tracking.runs import search_runs as search_runs
    from rollforward.tracking.runs import set_run_tags as set_run_tags
    from rollforward.tracking.watch_runs import RunsWatch as RunsWatch
    from rollforward.tracking.watch_runs import watch_runs as watch_runs

_NAMES: Final = {
    "_artifacts.trees": "collect_garbage get_manifest upload",
    "_journal.sync": "Synced sync",
    "_series": "MetricHistory",
    "_transport.connection": "Connection close connect new_request_id",
    "downloads": "download list_files",
    "errors": "AlreadyExists Conflict Forbidden InternalError InvalidRequest NotFound PreconditionFailed "
    "RollforwardError RollforwardWarning Unauthenticated Unavailable",
    "operations.audit": "Conditions export_events list_events",
    "operations.deployments": "deployments",
    "operations.system": "rebuild snapshot status",
    "operations.webhooks": "create_webhook delete_webhook get_webhook list_webhooks replay_webhook resume_webhook "
    "rotate_webhook_secret try_webhook update_webhook webhook_attempts webhook_deliveries",
    "registry.aliases": "move_alias move_alias_response move_aliases remove_alias resolve resolve_alias resolve_all",
    "registry.diff": "AliasesDifference AssignmentDifference Difference MoveDifference VersionsDifference "
    "diff_aliases diff_move diff_versions",
    "registry.history": "Blame alias_history alias_intervals blame changes_at",
    "registry.labels": "remove_tags set_description set_tags",
    "registry.models": "create_model delete_model get_model list_models rename_model restore_model "
    "set_registration_gate",
    "registry.policies": "check_evidence list_policies remove_policy replay_gate set_policy try_gate",
    "registry.rollback": "rollback",
    "registry.schedules": "cancel_schedule list_schedules schedule_move",
    "registry.versions": "copy_version delete_version get_version list_versions register_model restore_version "
    "set_version_status",
    "registry.watch_aliases": "Watch watch",
    "tracking.compare": "Compared ComparedMetric RunsComparison compare_runs side_by_side",
    "tracking.experiments": "create_experiment delete_experiment get_experiment list_experiments "
    "remove_experiment_tags rename_experiment restore_experiment set_experiment_tags",
    "tracking.live_run.run": "Run current_run",
    "tracking.live_run.start": "resume_run start_run",
    "tracking.logged_models": "create_logged_model delete_logged_model finalize_logged_model get_logged_model "
    "log_logged_model_artifact log_logged_model_params remove_logged_model_tags "
    "restore_logged_model search_logged_models set_logged_model_tags",
    "tracking.metrics": "MetricIntervals metric_history metric_intervals metric_points",
    "tracking.run_changes": "apply_change points_of",
    "tracking.run_lookup": "find_run",
    "tracking.runs": "delete_run describe_run get_run log_input log_output remove_run_tags rename_run restore_run "
    "search_runs set_run_tags",
    "tracking.watch_runs": "RunsWatch watch_runs",
}
_HOME: Final = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    # gRPC takes a tenth of a second to import: whoever only imports this package, such as a command that prints its
    # help, need not wait.
    if name == "v1":
        return import_module("rollforward.v1")
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - as slow, and seldom asked for

        return version("rollforward")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"rollforward.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    # Only what is meant for users: neither what this module imports nor its submodules.
    special = {name for name in globals() if name.startswith("__") and name.endswith("__")}
    return sorted({*_HOME, "v1", "__version__", *special} - {"__getattr__", "__dir__"})
