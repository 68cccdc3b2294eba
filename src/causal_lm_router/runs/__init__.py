"""Runs: the flow of training and evaluation, and what it leaves in a run folder."""
