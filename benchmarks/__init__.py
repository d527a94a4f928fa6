"""Benchmarks: each figure beside the limit that it stands on, measured in the same run."""
