"""The laws of every architecture family, and a tiny experiment for each."""
