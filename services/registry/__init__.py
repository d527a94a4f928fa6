"""The registry: models, versions, aliases and policies. It owns the registry log.

A stream is one model's, ``model/<the name that it was created with>``, or that of all policies.
"""

from eventstore import EventTypes
from services.model_streams import model_stream as model_stream
from services.model_streams import origin_of as origin_of
from services.registry.events import REGISTRY_EVENTS

EVENTS = EventTypes(REGISTRY_EVENTS)

POLICIES_STREAM = "policies"
