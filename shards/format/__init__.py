"""The on-disk contract of a shard set: manifest, shard table, tar layout and binary index."""
