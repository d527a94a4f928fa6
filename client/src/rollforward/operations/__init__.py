"""Operate the system: its status, deployments, recorded events and webhooks."""
