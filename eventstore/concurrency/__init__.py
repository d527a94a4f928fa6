"""Waiting: watermarks, turns, tasks that end, and pauses between attempts."""
