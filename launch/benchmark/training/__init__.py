"""Code that the benchmarks of training share: `step`, `scaling` and `checkpoint`."""
