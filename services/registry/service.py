"""The registry service: models, versions, aliases and policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from eventstore import CommandHandler, Projector
from rollforward import v1
from services.artifacts import manifests, run_artifacts
from services.registry import EVENTS
from services.registry.commands import Commands
from services.registry.deciders.models import DECIDER
from services.registry.deciders.policies import POLICIES
from services.registry.gates.evaluator import GateEvaluator
from services.registry.live_view import LiveView
from services.registry.policy_servicer import PolicyServicer
from services.registry.projection.apply import RegistryProjection
from services.registry.projection.runs import RunsProjection
from services.registry.rollback import Rollbacks
from services.registry.scheduler import Scheduler
from services.registry.servicer import RegistryServicer
from services.rpc.methods import Sources
from services.service import BuiltService, GrpcService, Service, ServiceContext, ServiceProjection


def _build(context: ServiceContext, projectors: Sequence[Projector]) -> BuiltService:
    projector, runs = projectors
    store, tail, blobs = context.stores["registry"], context.tails["registry"], context.open_blobs()

    async def artifact_exists(digest: str) -> bool:
        return await manifests.exists(blobs, digest)

    async def compose(artifacts: Mapping[str, str], path: str) -> str | None:
        return await run_artifacts.compose(blobs, artifacts, path)

    live = LiveView(projector, tail)
    gates = GateEvaluator(runs)
    commands = Commands(CommandHandler(store, DECIDER, projector), gates, live)
    rollbacks = Rollbacks(commands, projector, live)
    registry = RegistryServicer(commands, rollbacks, live, projector, tail, runs, artifact_exists, compose)
    policies = PolicyServicer(CommandHandler(store, POLICIES, projector), projector, live, gates)
    return BuiltService(
        grpc=[
            GrpcService(
                "RegistryService",
                partial(v1.add_RegistryServiceServicer_to_server, registry),
                Sources(rows=[projector, runs], memory=[live]),
            ),
            GrpcService(
                "PolicyService",
                partial(v1.add_PolicyServiceServicer_to_server, policies),
                Sources(rows=[projector], memory=[live]),
            ),
        ],
        workers=[live, Scheduler(commands, projector, tail)],
    )


SERVICE = Service(
    name="registry",
    events=EVENTS,
    projections=[
        ServiceProjection("registry", RegistryProjection),
        ServiceProjection("tracking", RunsProjection, required=False),
    ],
    build=_build,
)
