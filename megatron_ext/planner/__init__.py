"""Memory and throughput of a run, estimated before it starts."""
