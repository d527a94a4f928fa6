"""The scenes of tracking, one module each."""
