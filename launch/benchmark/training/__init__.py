"""What the benchmarks `step`, `scaling` and `checkpoint` measure and share."""
