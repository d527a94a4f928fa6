"""The systems that are measured: rollforward, its peers, and the limits that both stand on."""
