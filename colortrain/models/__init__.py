"""The networks. Each module has a frozen config dataclass; `config.build()` is the only way a network is made."""
