"""Neural networks, one module per architecture, and the layers that they share.

Each architecture has a frozen config dataclass whose `build()` returns the network.
"""
