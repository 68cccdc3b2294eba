"""Sweeps: how Hydra goes through the jobs of a grid or a search, how one job is run, and the report over them."""
