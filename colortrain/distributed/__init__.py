"""Data-parallel training: process start-up, wrapped networks, microbatches, ZeRO."""
