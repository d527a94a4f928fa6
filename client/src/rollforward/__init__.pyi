"""The public names, and the modules that have them. This is the only list of them: `__init__.py` reads it."""

from . import v1 as v1
from ._artifacts.trees import (
    collect_garbage as collect_garbage,
)
from ._artifacts.trees import (
    get_manifest as get_manifest,
)
from ._artifacts.trees import (
    upload as upload,
)
from ._journal.sync import (
    Synced as Synced,
)
from ._journal.sync import (
    sync as sync,
)
from ._series import (
    MetricHistory as MetricHistory,
)
from ._transport.connection import (
    new_request_id as new_request_id,
)
from ._transport.default import (
    close as close,
)
from .client import (
    Client as Client,
)
from .client import (
    connect as connect,
)
from .downloads import (
    download as download,
)
from .downloads import (
    list_files as list_files,
)
from .errors import (
    AlreadyExists as AlreadyExists,
)
from .errors import (
    Conflict as Conflict,
)
from .errors import (
    Forbidden as Forbidden,
)
from .errors import (
    InternalError as InternalError,
)
from .errors import (
    InvalidRequest as InvalidRequest,
)
from .errors import (
    NotFound as NotFound,
)
from .errors import (
    PreconditionFailed as PreconditionFailed,
)
from .errors import (
    RollforwardError as RollforwardError,
)
from .errors import (
    RollforwardWarning as RollforwardWarning,
)
from .errors import (
    Unauthenticated as Unauthenticated,
)
from .errors import (
    Unavailable as Unavailable,
)
from .operations.audit import (
    Conditions as Conditions,
)
from .operations.audit import (
    export_events as export_events,
)
from .operations.audit import (
    list_events as list_events,
)
from .operations.deployments import (
    deployments as deployments,
)
from .operations.system import (
    rebuild as rebuild,
)
from .operations.system import (
    snapshot as snapshot,
)
from .operations.system import (
    status as status,
)
from .operations.webhooks import (
    create_webhook as create_webhook,
)
from .operations.webhooks import (
    delete_webhook as delete_webhook,
)
from .operations.webhooks import (
    get_webhook as get_webhook,
)
from .operations.webhooks import (
    list_webhooks as list_webhooks,
)
from .operations.webhooks import (
    replay_webhook as replay_webhook,
)
from .operations.webhooks import (
    resume_webhook as resume_webhook,
)
from .operations.webhooks import (
    rotate_webhook_secret as rotate_webhook_secret,
)
from .operations.webhooks import (
    try_webhook as try_webhook,
)
from .operations.webhooks import (
    update_webhook as update_webhook,
)
from .operations.webhooks import (
    webhook_attempts as webhook_attempts,
)
from .operations.webhooks import (
    webhook_deliveries as webhook_deliveries,
)
from .registry.assignments import (
    move_alias as move_alias,
)
from .registry.assignments import (
    move_alias_response as move_alias_response,
)
from .registry.assignments import (
    move_aliases as move_aliases,
)
from .registry.assignments import (
    remove_alias as remove_alias,
)
from .registry.assignments import (
    resolve as resolve,
)
from .registry.assignments import (
    resolve_alias as resolve_alias,
)
from .registry.assignments import (
    resolve_all as resolve_all,
)
from .registry.diff import (
    AliasesDifference as AliasesDifference,
)
from .registry.diff import (
    AssignmentDifference as AssignmentDifference,
)
from .registry.diff import (
    Difference as Difference,
)
from .registry.diff import (
    MoveDifference as MoveDifference,
)
from .registry.diff import (
    VersionsDifference as VersionsDifference,
)
from .registry.diff import (
    diff_aliases as diff_aliases,
)
from .registry.diff import (
    diff_move as diff_move,
)
from .registry.diff import (
    diff_versions as diff_versions,
)
from .registry.history import (
    Blame as Blame,
)
from .registry.history import (
    alias_history as alias_history,
)
from .registry.history import (
    alias_intervals as alias_intervals,
)
from .registry.history import (
    blame as blame,
)
from .registry.history import (
    changes_at as changes_at,
)
from .registry.labels import (
    remove_tags as remove_tags,
)
from .registry.labels import (
    set_description as set_description,
)
from .registry.labels import (
    set_tags as set_tags,
)
from .registry.models import (
    create_model as create_model,
)
from .registry.models import (
    delete_model as delete_model,
)
from .registry.models import (
    get_model as get_model,
)
from .registry.models import (
    list_models as list_models,
)
from .registry.models import (
    rename_model as rename_model,
)
from .registry.models import (
    restore_model as restore_model,
)
from .registry.models import (
    set_registration_gate as set_registration_gate,
)
from .registry.policies import (
    check_evidence as check_evidence,
)
from .registry.policies import (
    list_policies as list_policies,
)
from .registry.policies import (
    remove_policy as remove_policy,
)
from .registry.policies import (
    replay_gate as replay_gate,
)
from .registry.policies import (
    set_policy as set_policy,
)
from .registry.policies import (
    try_gate as try_gate,
)
from .registry.rollback import (
    rollback as rollback,
)
from .registry.schedules import (
    cancel_schedule as cancel_schedule,
)
from .registry.schedules import (
    list_schedules as list_schedules,
)
from .registry.schedules import (
    schedule_move as schedule_move,
)
from .registry.versions import (
    copy_version as copy_version,
)
from .registry.versions import (
    delete_version as delete_version,
)
from .registry.versions import (
    get_version as get_version,
)
from .registry.versions import (
    list_versions as list_versions,
)
from .registry.versions import (
    register_model as register_model,
)
from .registry.versions import (
    restore_version as restore_version,
)
from .registry.versions import (
    set_version_status as set_version_status,
)
from .registry.watch_aliases import (
    Watch as Watch,
)
from .registry.watch_aliases import (
    watch as watch,
)
from .tracking.compare import (
    Compared as Compared,
)
from .tracking.compare import (
    ComparedMetric as ComparedMetric,
)
from .tracking.compare import (
    RunsComparison as RunsComparison,
)
from .tracking.compare import (
    compare_runs as compare_runs,
)
from .tracking.compare import (
    side_by_side as side_by_side,
)
from .tracking.experiments import (
    create_experiment as create_experiment,
)
from .tracking.experiments import (
    delete_experiment as delete_experiment,
)
from .tracking.experiments import (
    get_experiment as get_experiment,
)
from .tracking.experiments import (
    list_experiments as list_experiments,
)
from .tracking.experiments import (
    remove_experiment_tags as remove_experiment_tags,
)
from .tracking.experiments import (
    rename_experiment as rename_experiment,
)
from .tracking.experiments import (
    restore_experiment as restore_experiment,
)
from .tracking.experiments import (
    set_experiment_tags as set_experiment_tags,
)
from .tracking.live_run.run import (
    Run as Run,
)
from .tracking.live_run.run import (
    current_run as current_run,
)
from .tracking.live_run.start import (
    resume_run as resume_run,
)
from .tracking.live_run.start import (
    start_run as start_run,
)
from .tracking.logged_models import (
    create_logged_model as create_logged_model,
)
from .tracking.logged_models import (
    delete_logged_model as delete_logged_model,
)
from .tracking.logged_models import (
    finalize_logged_model as finalize_logged_model,
)
from .tracking.logged_models import (
    get_logged_model as get_logged_model,
)
from .tracking.logged_models import (
    log_logged_model_artifact as log_logged_model_artifact,
)
from .tracking.logged_models import (
    log_logged_model_params as log_logged_model_params,
)
from .tracking.logged_models import (
    remove_logged_model_tags as remove_logged_model_tags,
)
from .tracking.logged_models import (
    restore_logged_model as restore_logged_model,
)
from .tracking.logged_models import (
    search_logged_models as search_logged_models,
)
from .tracking.logged_models import (
    set_logged_model_tags as set_logged_model_tags,
)
from .tracking.metrics import (
    MetricIntervals as MetricIntervals,
)
from .tracking.metrics import (
    metric_history as metric_history,
)
from .tracking.metrics import (
    metric_intervals as metric_intervals,
)
from .tracking.metrics import (
    metric_points as metric_points,
)
from .tracking.run_changes import (
    apply_change as apply_change,
)
from .tracking.run_changes import (
    points_of as points_of,
)
from .tracking.run_lookup import (
    find_run as find_run,
)
from .tracking.stored_runs import (
    delete_run as delete_run,
)
from .tracking.stored_runs import (
    describe_run as describe_run,
)
from .tracking.stored_runs import (
    get_run as get_run,
)
from .tracking.stored_runs import (
    log_input as log_input,
)
from .tracking.stored_runs import (
    log_output as log_output,
)
from .tracking.stored_runs import (
    remove_run_tags as remove_run_tags,
)
from .tracking.stored_runs import (
    rename_run as rename_run,
)
from .tracking.stored_runs import (
    restore_run as restore_run,
)
from .tracking.stored_runs import (
    search_runs as search_runs,
)
from .tracking.stored_runs import (
    set_run_tags as set_run_tags,
)
from .tracking.watch_runs import (
    RunsWatch as RunsWatch,
)
from .tracking.watch_runs import (
    watch_runs as watch_runs,
)

__version__: str
