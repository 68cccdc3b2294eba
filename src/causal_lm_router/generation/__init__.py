"""Ways to read a route out of a base model, besides a free generation."""
