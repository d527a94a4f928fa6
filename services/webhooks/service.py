"""The webhooks service: endpoints and their deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from eventstore import CommandHandler, Projector
from rollforward import v1
from services.rpc.methods import Sources
from services.service import BuiltService, GrpcService, Service, ServiceContext, ServiceProjection
from services.webhooks import EVENTS
from services.webhooks.allowed_addresses import open_client
from services.webhooks.decider import DECIDER
from services.webhooks.delivery import ATTEMPTS, DeliveryContext
from services.webhooks.dispatcher import Dispatcher
from services.webhooks.http_client import REQUEST_SECONDS, USER_AGENT
from services.webhooks.projection import WebhooksProjection
from services.webhooks.servicer import WebhooksServicer
from services.webhooks.signing import Signer, master_key


def _build(service: ServiceContext, projectors: Sequence[Projector]) -> BuiltService:
    (projector,) = projectors
    settings = service.settings
    allow_private = bool(settings.webhooks_allow_private)
    context = DeliveryContext(
        registry=service.tails["registry"],
        commands=CommandHandler(service.stores["webhooks"], DECIDER, projector),
        signer=Signer(master_key(settings.webhook_key, settings.data)),
        client=open_client(allow_private=allow_private, user_agent=USER_AGENT, timeout=REQUEST_SECONDS),
        retry_timeout=settings.webhook_patience,
        allow_private=allow_private,
    )
    dispatcher = Dispatcher(projector, context)
    add = partial(v1.add_WebhookServiceServicer_to_server, WebhooksServicer(projector, dispatcher))
    return BuiltService([GrpcService("WebhookService", add, Sources(rows=[projector]))], [dispatcher])


SERVICE = Service(
    name="webhooks",
    events=EVENTS,
    follows=["registry"],
    projections=[ServiceProjection("webhooks", WebhooksProjection)],
    build=_build,
    metrics=[ATTEMPTS],
)
