"""Routing data: sources, splits, labels, and what is made of them before training."""
