"""The measured systems: rollforward, its peers, and the limits that bound both."""
