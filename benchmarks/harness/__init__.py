"""The harness of all benchmarks: scenes, clients in other processes, figures and reports."""
