"""Benchmarks; each prints one JSON line, its ratios measured in one run."""
