"""Build shard sets from images, on one machine or several."""
