"""The commands of tracking: what each is decided on, and over which stream."""

from __future__ import annotations

from collections.abc import Callable

from eventstore import CommandHandler, Metadata, Outcome, Rejected
from rollforward import v1
from services.tracking import EXPERIMENTS_STREAM, logged_model_stream, run_stream
from services.tracking.deciders.experiments import ExperimentCommand, Experiments, not_open
from services.tracking.deciders.logged_models import Create, LoggedModelCommand, LoggedModelState
from services.tracking.deciders.run_commands import RunCommand, Start
from services.tracking.deciders.run_state import RunState
from services.tracking.deciders.runs import run_not_found
from services.validation import check_id, check_logged_model_id


class Commands:
    """The commands of experiments, runs and logged models.

    All raise what `CommandHandler.handle` raises.

    Args:
        experiments: The commands of experiments.
        runs: Those of runs.
        models: Those of logged models.
        note_heartbeat: Is called with the id of each run that a command is about.
    """

    def __init__(
        self,
        experiments: CommandHandler[Experiments],
        runs: CommandHandler[RunState],
        models: CommandHandler[LoggedModelState],
        note_heartbeat: Callable[[str], None],
    ) -> None:
        self._experiments = experiments
        self._runs = runs
        self._models = models
        self._note_heartbeat = note_heartbeat

    async def on_experiments(self, command: ExperimentCommand, metadata: Metadata) -> Outcome[Experiments]:
        """Handle a command on experiments."""
        return await self._experiments.handle(EXPERIMENTS_STREAM, command, metadata)

    async def start_run(self, request: v1.StartRunRequest, metadata: Metadata) -> Outcome[RunState]:
        """Start a run."""
        if request.parent_run_id:
            check_id(request.parent_run_id, "INVALID_RUN_ID")
        rejection = await self._rejection(request.experiment_id, request.parent_run_id)
        return await self.on_run(request.run_id, Start(request, rejection), metadata)

    async def on_run(self, run_id: str, command: RunCommand, metadata: Metadata) -> Outcome[RunState]:
        """Handle a command on a run."""
        check_id(run_id, "INVALID_RUN_ID")
        self._note_heartbeat(run_id)
        return await self._runs.handle(run_stream(run_id), command, metadata)

    async def log(self, request: v1.LogBatchRequest, metadata: Metadata) -> Outcome[RunState]:
        """Log a batch. Points alone, of a run that is not lost, commute with other writers' commands."""
        check_id(request.run_id, "INVALID_RUN_ID")
        self._note_heartbeat(request.run_id)
        stream = run_stream(request.run_id)
        labels = request.params or request.tags or request.removed_tags
        if labels or (await self._runs.cached_state(stream)).status == v1.RUN_STATUS_LOST:
            return await self._runs.handle(stream, request, metadata)
        return await self._runs.handle_concurrently(stream, request, metadata)

    async def create_model(self, request: v1.CreateLoggedModelRequest, metadata: Metadata) -> Outcome[LoggedModelState]:
        """Create a logged model."""
        if request.source_run_id:
            check_id(request.source_run_id, "INVALID_RUN_ID")
        rejection = await self._rejection(request.experiment_id, request.source_run_id)
        return await self.on_model(request.model_id, Create(request, rejection), metadata)

    async def on_model(
        self, model_id: str, command: LoggedModelCommand, metadata: Metadata
    ) -> Outcome[LoggedModelState]:
        """Handle a command on a logged model."""
        check_logged_model_id(model_id)
        return await self._models.handle(logged_model_stream(model_id), command, metadata)

    async def _rejection(self, experiment_id: str, run_id: str) -> Rejected | None:
        """Return why nothing can be added to an experiment, or to its run if one is given; None when it can."""
        experiments, _ = await self._experiments.state(EXPERIMENTS_STREAM)
        if refusal := not_open(experiments, experiment_id):
            return refusal
        if run_id and (await self._runs.cached_state(run_stream(run_id))).status == v1.RUN_STATUS_UNSPECIFIED:
            return run_not_found(run_id)
        return None
