"""The queries of tracking, each from rows of one moment."""
