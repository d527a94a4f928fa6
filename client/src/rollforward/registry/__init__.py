"""The registry: models, versions, aliases, their past, schedules, policies and rollbacks."""
