"""The run folder: its layout and history, and its checkpoints."""
