"""Finetune a causal LM to generate the name of the best LLM for a query, and measure how well it routes."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causal_lm_router.evaluation.report_frame import report_frame
    from causal_lm_router.runs.from_python import baseline, evaluate, train
    from causal_lm_router.runs.router import CausalLMRouter, CausalLMRouterTrainer, CausalLMTrainer

__version__ = "0.1.0"
__all__ = [
    "CausalLMRouter",
    "CausalLMRouterTrainer",
    "CausalLMTrainer",
    "__version__",
    "baseline",
    "evaluate",
    "report_frame",
    "train",
]
_HOMES = {
    "runs.router": ("CausalLMRouter", "CausalLMRouterTrainer", "CausalLMTrainer"),
    "runs.from_python": ("train", "baseline", "evaluate"),
    "evaluation.report_frame": ("report_frame",),
}
"""Module -> what this package offers of it."""


def __getattr__(name: str) -> Any:
    """Import public classes and functions on first use: they need torch, the package itself does not."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"causal_lm_router.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, those not imported yet among them."""
    return sorted({*globals(), *__all__})
