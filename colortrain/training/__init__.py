"""The training loop: steps, checkpoints, validation, logging, stopping and resuming.

The folder is flat: `trainer` uses every other module, and few of them use each other.
"""
