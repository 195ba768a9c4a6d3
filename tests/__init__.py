"""The tests: they mirror loopformer/; tests/house reads the repository."""
