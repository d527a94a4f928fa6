"""Benchmarks: each figure next to the limit that bounds it, measured in the same run."""
