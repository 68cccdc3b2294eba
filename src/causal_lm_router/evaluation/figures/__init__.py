"""Drawings: functions that return a matplotlib figure, and `save_figure`, which writes it."""
