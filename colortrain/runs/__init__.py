"""The run folder: its layout, its history, and its checkpoints."""
