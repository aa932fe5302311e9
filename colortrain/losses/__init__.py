"""Loss functions: adversarial and reconstruction terms, and gradient penalties.

Each is a frozen dataclass in a module by kind; `registry` lists those that recipes may
use.
"""
