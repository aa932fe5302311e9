"""Hypothesis strategies for shards."""

from __future__ import annotations

from hypothesis import strategies as st

from shards.format.shard_table import Shard

SHARD = st.builds(
    Shard,
    path=st.text(min_size=1, max_size=8).filter(
        lambda text: text.isprintable() and "/" not in text and text not in (".", "..")
    ),
    samples=st.integers(0, 2**40),
    bytes=st.integers(0, 2**50),
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
)
SHARDS = st.lists(SHARD, max_size=5)
