"""Network architectures: a flat folder with one module each, and shared layers.

Each module has a frozen config dataclass, and `config.build()` makes the network.
"""
