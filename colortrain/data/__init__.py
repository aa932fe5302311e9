"""Training batches, from indexed shard sets or from plain WebDataset tars."""
