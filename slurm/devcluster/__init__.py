"""A real SLURM cluster of several nodes on one machine, for development and tests.

All files of a cluster are in one folder.
"""
