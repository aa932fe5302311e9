"""Loss functions: adversarial and reconstruction terms, and gradient penalties.

Each is a frozen dataclass.
"""
