"""One training step across several processes and devices."""
