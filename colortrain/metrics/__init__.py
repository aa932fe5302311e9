"""Metrics of generated images.

`image_metrics` contains metrics of single images, `set_metrics` metrics of whole sets
of images.
"""
