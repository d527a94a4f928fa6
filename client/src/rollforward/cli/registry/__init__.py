"""Commands about models, versions, aliases, policies, schedules and rollbacks."""
