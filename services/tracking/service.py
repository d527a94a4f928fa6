"""The tracking service: experiments, runs, logged models and artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from eventstore import CommandHandler, Projector
from rollforward import v1
from services.artifacts.garbage_collection import Collector
from services.artifacts.registered_digests import NamedArtifactsProjection
from services.artifacts.servicer import ArtifactServicer
from services.rpc.methods import Sources
from services.service import BuiltService, GrpcService, Service, ServiceContext, ServiceProjection
from services.tracking import EVENTS
from services.tracking.commands import Commands
from services.tracking.deciders.experiments import EXPERIMENTS
from services.tracking.deciders.logged_models import LOGGED_MODELS
from services.tracking.deciders.runs import RUNS
from services.tracking.liveness import Liveness
from services.tracking.logged_model_servicer import LoggedModelServicer
from services.tracking.projection.apply import TrackingProjection
from services.tracking.queries.live_digests import LiveDigests
from services.tracking.servicer import TrackingServicer


def _build(context: ServiceContext, projectors: Sequence[Projector]) -> BuiltService:
    projector, registered = projectors
    store = context.stores["tracking"]
    blobs = context.open_blobs()
    runs = CommandHandler(store, RUNS, projector)
    liveness = Liveness(runs, projector, context.tails["tracking"], context.settings.attendance_patience)
    experiments = CommandHandler(store, EXPERIMENTS, projector)
    models = CommandHandler(store, LOGGED_MODELS, projector)
    commands = Commands(experiments, runs, models, liveness.note_heartbeat)
    servicer = TrackingServicer(commands, liveness, projector, blobs)
    model_servicer = LoggedModelServicer(commands, projector, blobs)
    artifacts = ArtifactServicer(blobs, Collector(blobs, LiveDigests(projector, registered).digests))
    rows = Sources(rows=[projector])
    return BuiltService(
        grpc=[
            GrpcService("TrackingService", partial(v1.add_TrackingServiceServicer_to_server, servicer), rows),
            GrpcService(
                "LoggedModelService", partial(v1.add_LoggedModelServiceServicer_to_server, model_servicer), rows
            ),
            GrpcService("ArtifactService", partial(v1.add_ArtifactServiceServicer_to_server, artifacts)),
        ],
        workers=[liveness],
    )


SERVICE = Service(
    name="tracking",
    events=EVENTS,
    erasable=True,
    projections=[
        ServiceProjection("tracking", TrackingProjection),
        ServiceProjection("registry", NamedArtifactsProjection, required=False),
    ],
    build=_build,
)
