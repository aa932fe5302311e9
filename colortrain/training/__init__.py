"""The training loop: steps, checkpoints, validation, logging, stopping and resuming."""
