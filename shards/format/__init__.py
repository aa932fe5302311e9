"""The on-disk format of a shard set: manifest, shard table, tar layout, index."""
