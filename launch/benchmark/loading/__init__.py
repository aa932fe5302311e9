"""Benchmarks of building shards, reading them, making batches, and seeking."""
