"""What is minimised: adversarial games and reconstruction terms, each a frozen dataclass that computes itself."""
