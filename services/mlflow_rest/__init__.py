"""MLflow's REST API over the services of this process: experiments, runs, logged models, registry and artifacts.

Every request becomes calls of the same methods that gRPC clients call, through the same interceptor. MLflow itself is
not needed. Source of the requests and responses: https://mlflow.org/docs/latest/rest-api.html
"""
