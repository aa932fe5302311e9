"""Benchmarks of reading, batching, seeking and building shards."""
