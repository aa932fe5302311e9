"""Photographs to a shard set, on one machine or many."""
