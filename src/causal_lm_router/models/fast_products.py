"""Matrix products of linear layers on a CPU in float32 by the faster of two libraries, MKL and oneDNN.

PyTorch takes MKL for float32. On an AMD processor MKL leaves half of the vector unit unused, and oneDNN is twice as
fast; on an Intel processor both are alike. Values and gradients are the same but for rounding.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

TOKENS, WIDTH, MLP_WIDTH = 512, 576, 1536
"""Shape of the product that is timed: a micro-batch through one layer of SmolLM2-135M. Wider models differ more."""
CLEARLY_FASTER = 1.5
"""oneDNN is taken where it is faster by this factor: halfway between the two kinds of processors, so that every process
on a machine takes the same, and a resumed run rounds as before."""
MIN_ROUNDS, MAX_ROUNDS, BUDGET_S = 3, 20, 0.3

Product = tuple[Callable[[Tensor, Tensor], Tensor], torch.dtype]
"""A function that multiplies as a linear layer does, and the number format of its operands."""


class Speeds(NamedTuple):
    """Speed (GFLOP/s) of a matrix product on this CPU."""

    mkl: float
    """float32, as PyTorch does it by itself."""
    onednn: float
    """float32 by oneDNN; 0 where there is none."""
    bfloat16: float

    @property
    def float32(self) -> float:
        """The speed of the library that float32 training takes."""
        return self.onednn if self.has_fast_onednn else self.mkl

    @property
    def has_fast_onednn(self) -> bool:
        """Whether oneDNN is clearly faster than MKL."""
        return self.onednn >= CLEARLY_FASTER * self.mkl


def fast_products(model: torch.nn.Module) -> contextlib.AbstractContextManager[object]:
    """Return a context in which the model's linear layers take the faster library, forwards and backwards."""
    first = next(model.parameters(), None)
    # Layers that are computed a second time while going backwards would be computed outside of the mode.
    can_take = _is_plain(first) and not getattr(model, "is_gradient_checkpointing", False)
    return _OneDnnMode() if can_take and product_speeds().has_fast_onednn else contextlib.nullcontext()


@functools.cache
def product_speeds() -> Speeds:
    """Return how fast the products are here; measured once a process, in less than a second."""
    kinds: dict[str, Product] = {"mkl": (linear, torch.float32), "bfloat16": (linear, torch.bfloat16)}
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        kinds["onednn"] = (onednn_linear, torch.float32)
    return Speeds(**{"onednn": 0.0, **_measure(kinds)})


def onednn_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return inputs @ weight.T + bias by oneDNN; no gradient flows through it."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return product


def _measure(kinds: Mapping[str, Product]) -> dict[str, float]:
    """Return the speed (GFLOP/s) of each kind of product on the CPU."""
    operands = {
        name: (torch.ones(TOKENS, WIDTH, dtype=dtype), torch.ones(MLP_WIDTH, WIDTH, dtype=dtype))
        for name, (_, dtype) in kinds.items()
    }
    # The first product of a kind makes its kernel and packs the weights.
    for name, (multiply, _) in kinds.items():
        multiply(*operands[name])
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    start = time.perf_counter()
    # The kinds take turns, so that other work on the machine slows all of them.
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and time.perf_counter() - start > BUDGET_S:
            break
        for name, (multiply, _) in kinds.items():
            before = time.perf_counter()
            multiply(*operands[name])
            seconds[name].append(time.perf_counter() - before)
    # The fastest round is the one that other processes disturbed least.
    return {name: 2e-9 * TOKENS * WIDTH * MLP_WIDTH / min(times) for name, times in seconds.items()}


class _OneDnnMode(TorchFunctionMode):
    """Sends float32 products of linear layers on the CPU to oneDNN; everything else stays."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is linear and not kwargs and all(_is_plain(part) for part in args) and args[0].numel():
            return _OneDnnLinear.apply(*args)  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _is_plain(part: Tensor | None) -> bool:
    """Return whether an argument of a linear layer is float32 on the CPU (or there is none) and will stay so."""
    if part is None:
        return True
    return part.dtype is torch.float32 and part.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        # A frozen weight needs no inputs for its gradient.
        ctx.save_for_backward(inputs if weight.requires_grad else None, weight)
        return onednn_linear(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        of_inputs, of_weight, of_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            onednn_linear(gradient.contiguous(), weight.t()) if of_inputs else None,
            rows.t() @ inputs.flatten(0, -2) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )
