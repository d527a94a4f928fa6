"""The queries of the registry, each from rows of one moment."""
