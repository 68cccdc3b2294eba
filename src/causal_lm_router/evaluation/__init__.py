"""Evaluation: outcomes to a report, its tables, figures and comparisons."""
