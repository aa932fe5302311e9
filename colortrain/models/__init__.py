"""Network architectures, one module each, and layers that they share.

Each architecture has a frozen config dataclass; `config.build()` makes the network.
"""
