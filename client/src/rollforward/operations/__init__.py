"""Operation of the system: status, deployments, recorded events and webhooks."""
