"""The audit service: every event of every log. It has no log of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from eventstore import EventTypes, Projector
from rollforward import v1
from services.audit.projection import AuditProjection
from services.audit.servicer import AuditServicer
from services.rpc.methods import Sources
from services.service import BuiltService, GrpcService, Service, ServiceContext, ServiceProjection


def audit_service(logs: Mapping[str, EventTypes]) -> Service:
    """Return the service over all logs.

    Args:
        logs: The types of each log's events, by the log's name.
    """

    def build(_: ServiceContext, projectors: Sequence[Projector]) -> BuiltService:
        types = {name for events in logs.values() for name in events.names}
        servicer = AuditServicer(dict(zip(logs, projectors, strict=True)), types)
        add = partial(v1.add_AuditServiceServicer_to_server, servicer)
        return BuiltService([GrpcService("AuditService", add, Sources(rows=projectors))])

    projections = [ServiceProjection(log, partial(AuditProjection, log)) for log in logs]
    return Service(name="audit", projections=projections, build=build)
