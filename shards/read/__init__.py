"""Reading a shard set: any sample in any order, from a local folder or a remote store."""
