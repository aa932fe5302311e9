"""Read shard sets: samples in any order, from a local folder or a remote store."""
