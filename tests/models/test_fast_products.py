"""Float32 products by oneDNN: the values and gradients of PyTorch's own, and nothing else goes there."""

import contextlib
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from causal_lm_router.models import fast_products
from causal_lm_router.models.fast_products import Speeds, onednn_linear

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


@pytest.fixture
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Make oneDNN the faster library; returns the shapes that it multiplies from then on."""
    monkeypatch.setattr(fast_products, "product_speeds", lambda: Speeds(100.0, 200.0, 100.0))
    seen: list[torch.Size] = []

    def watched(inputs: torch.Tensor, *others: Any) -> torch.Tensor:
        seen.append(inputs.shape)
        return onednn_linear(inputs, *others)

    monkeypatch.setattr(fast_products, "onednn_linear", watched)
    return seen


def loss_and_gradients(model: nn.Module, context: contextlib.AbstractContextManager[object]) -> list[torch.Tensor]:
    model.zero_grad()
    with context:
        loss = model(torch.arange(14).view(2, 7), labels=torch.arange(14).view(2, 7)).loss
        loss.backward()
    return [loss.detach(), *(weight.grad for weight in model.parameters() if weight.grad is not None)]


def make_model() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=50, **sizes, attention_bias=True)).float().train()


@pytest.mark.parametrize("frozen", [False, True])
def test_losses_and_gradients_are_those_of_plain_products(by_onednn: list[torch.Size], frozen: bool) -> None:
    model = make_model()
    if frozen:
        model.requires_grad_(False).get_input_embeddings().requires_grad_(True)
    expected = loss_and_gradients(model, contextlib.nullcontext())
    assert not by_onednn
    found = loss_and_gradients(model, fast_products.fast_products(model))
    assert len(by_onednn) >= 2 * 2 * 7  # forwards and backwards, 7 linear layers in each of 2
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


def test_layers_that_are_computed_twice_stay(by_onednn: list[torch.Size]) -> None:
    model = make_model()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert len(loss_and_gradients(model, fast_products.fast_products(model))) > 1
    assert not by_onednn


def test_other_formats_and_empty_products_stay(by_onednn: list[torch.Size]) -> None:
    layer = nn.Linear(8, 4)
    with fast_products.fast_products(layer):
        assert layer.double()(torch.ones(2, 8).double()).dtype is torch.float64
        assert layer.float()(torch.ones(0, 8)).shape == (0, 4)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(torch.ones(2, 8)).dtype is torch.bfloat16
    assert not by_onednn


def test_where_mkl_is_as_fast_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_products, "product_speeds", lambda: Speeds(400.0, 420.0, 2400.0))
    assert isinstance(fast_products.fast_products(nn.Linear(2, 2)), contextlib.nullcontext)
