"""Metric series: packed columns of points, and the latest point of each."""
