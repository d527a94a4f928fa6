"""Quality gates: CEL expressions over runs and versions, compiled, bounded in cost, evaluated and replayed."""
