"""Inspect finished shard sets: verification, summaries and colour statistics."""
