"""Depth sweeps, halting comparisons, and what is shown of them."""
