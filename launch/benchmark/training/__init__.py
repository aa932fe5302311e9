"""Code of the benchmarks `step`, `scaling` and `checkpoint`, which train."""
