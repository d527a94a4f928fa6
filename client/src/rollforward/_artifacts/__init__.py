"""Artifacts: trees of files, their manifests, and their transfer with every byte verified."""
