"""Base models: loading, LoRA, new tokens, likelihoods of targets."""
