"""How Hydra goes through a sweep: the grid, and a search with Optuna."""
