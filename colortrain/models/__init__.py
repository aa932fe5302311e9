"""The networks, a flat list: each module has a frozen config dataclass, and `config.build()` makes the network."""
