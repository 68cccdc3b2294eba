"""Measures of a router that scores every candidate: curves, frontiers, calibration, concentration of its routes.

Arrays have a row per query and, where two-dimensional, a column per candidate in pool order. Scores and predictions
lie in 0..1, costs are USD. A measure that is undefined on its queries is NaN.
"""
