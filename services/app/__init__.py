"""The composition root: settings in, a running process out."""

from services.app.catalog import LOGS, SERVICES
from services.app.process import Running, running

__all__ = ["LOGS", "SERVICES", "Running", "running"]
