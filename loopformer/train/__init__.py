"""Objectives, the train step, checkpoints, writers and the host loop."""
