"""Network architectures, one per module of this folder, and layers that they share.

Each architecture has a frozen config dataclass; `config.build()` makes the network.
"""
