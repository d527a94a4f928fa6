"""Snapshots: the rows of a projection at one position, dumped, stored, and taken on a schedule."""
