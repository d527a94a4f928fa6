"""The requests of MLflow's REST API, by what they are about."""
