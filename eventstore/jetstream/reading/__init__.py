"""Read events: single ones, streams, pages of the past, and deliveries as they come."""
