"""The doors on a cluster: jobs and arrays through SLURM, and a SLURM of one's own to try them on."""
