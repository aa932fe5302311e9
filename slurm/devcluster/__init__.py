"""A real SLURM cluster of several nodes on one machine, for development and tests.

All its files are in one folder.
"""
