"""The scenes of tracking: one module each, that says what it measures on which systems, and does it."""
