"""Benchmarks of training steps, scaling and checkpoints."""
