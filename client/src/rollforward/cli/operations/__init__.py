"""Commands for the running system: status, read models, audit and webhooks."""
