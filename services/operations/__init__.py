"""Operations: the health, readiness and metrics of a process, over HTTP and gRPC."""
