"""A live run: the handle that a training job logs to."""
