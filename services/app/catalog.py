"""All services and all logs. A new slice is added here, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

from eventstore import EventTypes
from services.audit.service import audit_service
from services.registry.service import SERVICE as REGISTRY
from services.service import Service
from services.serving.service import SERVICE as SERVING
from services.tracking.service import SERVICE as TRACKING
from services.webhooks.service import SERVICE as WEBHOOKS

LOGS: Mapping[str, EventTypes] = {
    service.name: service.events for service in (TRACKING, REGISTRY, SERVING, WEBHOOKS) if service.events
}
"""The types of each log's events, by the log's name."""

SERVICES: Mapping[str, Service] = {
    service.name: service for service in (TRACKING, REGISTRY, SERVING, audit_service(LOGS), WEBHOOKS)
}
"""The services, by name, in the order in which they are built and listed."""
