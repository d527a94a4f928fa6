"""Audit: every event of every log, for search. It owns no facts, so it decides nothing."""
