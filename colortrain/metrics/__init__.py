"""Metrics of generated images.

`image_metrics` contains those of single images, `set_metrics` those of whole sets.
"""
