"""A real SLURM of several nodes on one Linux machine, for trying things and for tests; nothing outside one folder."""
