"""SQL helpers that the projections of all services share."""
