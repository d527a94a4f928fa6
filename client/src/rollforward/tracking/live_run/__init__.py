"""A live run: what a training job holds while it logs."""
