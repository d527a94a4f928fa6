"""The registry: models, versions, aliases and their history, schedules, policies and rollbacks."""
