"""What a finished shard set holds: verification, summaries and colour statistics."""
