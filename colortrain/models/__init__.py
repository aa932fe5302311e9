"""Network architectures, one module each: a flat folder, as none builds on another.

Each module has a frozen config dataclass, and `config.build()` makes the network.
"""
