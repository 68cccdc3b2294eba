"""Finetune a causal LM to generate the name of the best LLM for a query, and measure how well it routes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causal_lm_router.llmrouter_api import CausalLMRouterTrainer
    from causal_lm_router.route import CausalLMRouter

__version__ = "0.1.0"
__all__ = ["CausalLMRouter", "CausalLMRouterTrainer", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the two public classes on first use: they need torch, the package itself does not."""
    if name == "CausalLMRouter":
        from causal_lm_router.route import CausalLMRouter

        return CausalLMRouter
    if name == "CausalLMRouterTrainer":
        from causal_lm_router.llmrouter_api import CausalLMRouterTrainer

        return CausalLMRouterTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
