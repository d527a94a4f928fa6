"""A release that adds an event type raises the version of audit's rows.

An older release shows an event of an unknown type as undecodable. Only rows of a new version show it properly.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from services.app import LOGS
from services.audit.projection import AuditProjection

RECORDED = Path(__file__).with_name("golden") / "audit_version.json"


def test_version_of_audit_rows_changes_with_event_types() -> None:
    recorded = json.loads(RECORDED.read_text())
    types = {log: sorted(importlib.import_module(f"services.{log}").EVENTS.names) for log in LOGS}
    changed = sorted(
        name for log in types for name in {*types[log]}.symmetric_difference(recorded["types"].get(log, []))
    )
    current = json.dumps({"version": AuditProjection.version, "types": types}, indent=2)
    assert not (changed and AuditProjection.version == recorded["version"]), (
        f"{', '.join(changed)}: added or removed since version {recorded['version']} of AuditProjection. "
        "Raise its version in services/audit/projection.py, so that events which an older release could not read "
        "are shown as they are, and run this test again"
    )
    assert (recorded["version"], recorded["types"]) == (AuditProjection.version, types), (
        f"AuditProjection has another version than {RECORDED.name}. Write this to it:\n{current}"
    )
