"""Commands about experiments, runs, metrics, logged models and artifacts."""
