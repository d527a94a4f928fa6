"""Commands for models, versions, aliases, policies, schedules and rollbacks."""
