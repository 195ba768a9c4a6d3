"""Layers and blocks shared by two families or more."""
