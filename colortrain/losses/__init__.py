"""Loss functions: adversarial and reconstruction terms, and gradient penalties.

Each loss is a frozen dataclass; the modules group them by kind. `registry` lists the
losses that recipes may use.
"""
