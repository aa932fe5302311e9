"""Commands for SLURM clusters: jobs, job arrays, and a local development cluster."""
