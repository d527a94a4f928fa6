"""The kernel: event logs, deciders and projections. It knows nothing of machine learning."""
