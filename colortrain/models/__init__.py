"""Network architectures, one per module of this flat folder, and layers they share.

Each architecture has a frozen config dataclass; `config.build()` makes the network.
"""
