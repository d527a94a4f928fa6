"""Artifacts: blobs by digest, manifests, uploads, object stores and garbage collection."""
