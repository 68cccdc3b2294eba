"""Drawings of an evaluation: routes by task, scores, reliability, and the frontier of cost and score."""

from causal_lm_router.evaluation.figures.evaluation_figures import save_routing_figures

__all__ = ["save_routing_figures"]
