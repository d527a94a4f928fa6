"""The journal of a run on disk: what is logged is written there first, and delivered exactly once."""
