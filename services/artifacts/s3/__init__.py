"""Artifacts in an S3 bucket: its objects, direct transfers, and the lease of a collection."""
