"""The scenes of the registry: one module each, that says what it measures on which systems, and does it."""
