"""The training loop: steps, saving, validation, logging, stopping and resuming."""
