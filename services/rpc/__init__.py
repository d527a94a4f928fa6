"""gRPC: the server, the interceptor before every method, and what all watches share."""
