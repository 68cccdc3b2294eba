"""Prompting: queries to prompts, candidates to targets, generated text to routes."""
