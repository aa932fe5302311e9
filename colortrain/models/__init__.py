"""Network architectures: a flat folder with one module each, and shared layers.

Each architecture has a frozen config dataclass; `config.build()` makes the network.
"""
