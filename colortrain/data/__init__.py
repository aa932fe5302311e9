"""Batches for training, from indexed shard sets or from plain WebDataset tars."""
