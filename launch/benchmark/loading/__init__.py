"""The methods that the benchmarks `loader` and `build` measure."""
