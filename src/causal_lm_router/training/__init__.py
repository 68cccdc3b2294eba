"""Training: rows, micro-batches, losses, the Lightning module, checkpoints."""
