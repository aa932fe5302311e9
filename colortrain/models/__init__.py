"""Neural networks in a flat folder: one module per architecture, and shared layers.

Each architecture has a frozen config dataclass whose `build()` returns the network.
"""
