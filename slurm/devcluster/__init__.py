"""A real SLURM of several nodes on one Linux machine, for development and tests.

All its files are in one folder.
"""
