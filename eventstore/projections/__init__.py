"""Projections: tables computed from a log, their generations, rebuilds and snapshots."""
