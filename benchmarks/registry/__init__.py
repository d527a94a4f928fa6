"""The scenes of the registry, one module each."""
