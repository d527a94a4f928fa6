"""The serving service: pods and the aliases that they follow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from eventstore import CommandHandler, Projector
from rollforward import v1
from services.rpc.methods import Sources
from services.service import BuiltService, GrpcService, Service, ServiceContext, ServiceProjection
from services.serving import EVENTS
from services.serving.assignments import AssignmentsProjection
from services.serving.decider import DECIDER
from services.serving.projection import ServingProjection
from services.serving.servicer import ServingServicer


def _build(context: ServiceContext, projectors: Sequence[Projector]) -> BuiltService:
    projector, assignments = projectors
    servicer = ServingServicer(CommandHandler(context.stores["serving"], DECIDER, projector), projector, assignments)
    add = partial(v1.add_ServingServiceServicer_to_server, servicer)
    return BuiltService([GrpcService("ServingService", add, Sources(rows=[projector, assignments]))])


SERVICE = Service(
    name="serving",
    events=EVENTS,
    projections=[
        ServiceProjection("serving", ServingProjection),
        ServiceProjection("registry", AssignmentsProjection, required=False),
    ],
    build=_build,
)
