"""Commands for experiments, runs, metrics, logged models and artifacts."""
