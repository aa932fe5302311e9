"""Loss functions: adversarial and reconstruction terms, and gradient penalties.

Each loss is a frozen dataclass, and there is one module per kind of loss. `registry`
lists the losses that recipes may use.
"""
