"""The gRPC methods of logged models."""

from __future__ import annotations

from eventstore import Projector, Rejected
from rollforward import v1
from services.artifacts.manifests import describe
from services.artifacts.store import BlobStore
from services.rpc.context import Context, metadata
from services.tracking.commands import Commands
from services.tracking.deciders.logged_models import LogFiles, LoggedModelRequest
from services.tracking.queries import runs
from services.validation import check_digest, check_logged_model_id


class LoggedModelServicer(v1.LoggedModelServiceServicer):
    """Logged models.

    Args:
        commands: The commands of tracking.
        rows: The rows of tracking.
        blobs: Where artifacts are stored.
    """

    def __init__(self, commands: Commands, projector: Projector, blobs: BlobStore) -> None:
        self._commands = commands
        self._projector = projector
        self._blobs = blobs

    async def CreateLoggedModel(
        self, request: v1.CreateLoggedModelRequest, context: Context
    ) -> v1.CreateLoggedModelResponse:
        """Create a logged model."""
        done = await self._commands.create_model(request, metadata(request, context))
        return v1.CreateLoggedModelResponse(position=done.position)

    async def LogLoggedModel(self, request: v1.LogLoggedModelRequest, context: Context) -> v1.LogLoggedModelResponse:
        """Log parameters, and set and remove tags."""
        return v1.LogLoggedModelResponse(position=await self._on_model(request.model_id, request, context))

    async def LogLoggedModelArtifact(
        self, request: v1.LogLoggedModelArtifactRequest, context: Context
    ) -> v1.LogLoggedModelArtifactResponse:
        """Log the files of a logged model."""
        check_logged_model_id(request.model_id)
        check_digest(request.digest)
        try:
            command = LogFiles(request, *await describe(self._blobs, request.digest))
        except Rejected as refusal:  # a repeated request was done when the files were there
            command = LogFiles(request, rejection=refusal)
        done = await self._commands.on_model(request.model_id, command, metadata(request, context))
        return v1.LogLoggedModelArtifactResponse(position=done.position)

    async def FinalizeLoggedModel(
        self, request: v1.FinalizeLoggedModelRequest, context: Context
    ) -> v1.FinalizeLoggedModelResponse:
        """Set a logged model to READY or FAILED."""
        return v1.FinalizeLoggedModelResponse(position=await self._on_model(request.model_id, request, context))

    async def DeleteLoggedModel(
        self, request: v1.DeleteLoggedModelRequest, context: Context
    ) -> v1.DeleteLoggedModelResponse:
        """Delete a logged model."""
        return v1.DeleteLoggedModelResponse(position=await self._on_model(request.model_id, request, context))

    async def RestoreLoggedModel(
        self, request: v1.RestoreLoggedModelRequest, context: Context
    ) -> v1.RestoreLoggedModelResponse:
        """Restore a deleted logged model."""
        return v1.RestoreLoggedModelResponse(position=await self._on_model(request.model_id, request, context))

    async def _on_model(self, model_id: str, request: LoggedModelRequest, context: Context) -> int:
        return (await self._commands.on_model(model_id, request, metadata(request, context))).position

    async def GetLoggedModel(self, request: v1.GetLoggedModelRequest, context: Context) -> v1.GetLoggedModelResponse:
        """Return one logged model."""
        model = await self._projector.query(lambda connection: runs.logged_model(connection, request.model_id))
        return v1.GetLoggedModelResponse(model=model)

    async def ListLoggedModelMetrics(
        self, request: v1.ListLoggedModelMetricsRequest, context: Context
    ) -> v1.ListLoggedModelMetricsResponse:
        """Return the metrics of one logged model, a page at a time."""
        return await self._projector.query(lambda connection: runs.logged_model_metrics(connection, request))

    async def ListLoggedModels(
        self, request: v1.ListLoggedModelsRequest, context: Context
    ) -> v1.ListLoggedModelsResponse:
        """Return logged models by filter."""
        return await self._projector.query(lambda connection: runs.list_logged_models(connection, request))
