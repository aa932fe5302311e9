"""The run folder: its layout, history, checkpoints and which of them are kept."""
