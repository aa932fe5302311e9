"""Networks, in a flat folder of one module per architecture.

Each module has a frozen config dataclass whose `build()` returns the network.
"""
