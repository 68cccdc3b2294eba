"""Finetune a causal LM to generate the name of the best LLM for a query, and measure how well it routes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causal_lm_router.runs.router import CausalLMRouter, CausalLMRouterTrainer, CausalLMTrainer

__version__ = "0.1.0"
__all__ = ["CausalLMRouter", "CausalLMRouterTrainer", "CausalLMTrainer", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the public classes on first use: they need torch, the package itself does not."""
    if name in __all__:
        from causal_lm_router.runs import router

        return getattr(router, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
