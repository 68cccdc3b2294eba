"""Workbench: what the jobs of one process share, so that only the first of them loads it.

It keeps one of each at most: data, tokenizer, base model, vLLM engine. No result of a job depends on earlier jobs.
"""

import atexit
import ctypes
import functools
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Generic, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from causal_lm_router.data.prepared import PreparedData
from causal_lm_router.generation.vllm_engine import VllmEngine

Value = TypeVar("Value")


class LastValue(Generic[Value]):
    """The value that was made last, for as long as the same key is asked for."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._value: Value | None = None

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        """Return the kept value where it was made under this key, else a new one, which is kept from now on."""
        if self._key != key or self._value is None:
            # First let go of the old value: two base models at once may not fit into memory.
            self.drop()
            self.put(key, make())
        assert self._value is not None
        return self._value

    def put(self, key: str, value: Value) -> None:
        """Keep a value in place of the one before."""
        self._key, self._value = key, value

    def drop(self) -> None:
        """Keep nothing."""
        self._key = self._value = None


class Workbench:
    """Holds what jobs have in common, for a process or for a `with` block; `close` drops all of it.

    The keys are up to those who put values in: they name everything that the value depends on.
    `keeps_base_model=False` frees the base model's memory after training, as a process of a single job wants it.
    """

    def __init__(self, *, keeps_base_model: bool = True) -> None:
        self.data = LastValue[PreparedData]()
        self.tokenizer = LastValue[PreTrainedTokenizerBase]()
        self.engine = VllmEngine()
        self._base_model = LastValue[PreTrainedModel]()
        self._keeps_base_model = keeps_base_model

    @contextmanager
    def lend_base_model(
        self, key: str, load: Callable[[], PreTrainedModel], adapt: Callable[[PreTrainedModel], torch.nn.Module]
    ) -> Iterator[torch.nn.Module]:
        """Yield what `adapt` makes of the base model: a PEFT model, or the base model itself to train all its weights.

        The base model is kept for the next job where it is as it was loaded once the adapter is off again. Where all
        its weights were trained, where anything else was changed, and where the block raises, the next job loads anew.
        """
        base_model = self._base_model.get(key, load)
        # While a job works on it, and after one that fails, nobody else gets it.
        self._base_model.drop()
        before = _traces(base_model)
        model = adapt(base_model)
        yield model
        # Only reached where the block did not raise. Weights that were trained themselves are no base model any more.
        if self._keeps_base_model and model is not base_model:
            base_model = model.unload().eval().requires_grad_(True)  # type: ignore[operator]
            if _traces(base_model) == before:
                self._base_model.put(key, base_model)

    def release(self) -> None:
        """Give back the memory that a finished job leaves, so that a process of many jobs does not grow."""
        # A trainer and its module refer to each other: only the collector frees them.
        gc.collect()
        # glibc keeps most of what was freed for later use; this hands it to the system.
        if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)

    def close(self) -> None:
        """Drop everything and end the engine; what is asked for afterwards is made anew."""
        for kept in (self.data, self.tokenizer, self._base_model):
            kept.drop()
        self.engine.close()

    def __enter__(self) -> "Workbench":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@functools.cache
def shared_workbench() -> Workbench:
    """Return the workbench of this process, made at the first call and closed when the process ends."""
    workbench = Workbench()
    atexit.register(workbench.close)
    return workbench


def open_workbench(given: Workbench | None) -> AbstractContextManager[Workbench]:
    """Return the given workbench, left open at the end, or one of its own for a single job, closed at the end."""
    return Workbench(keeps_base_model=False) if given is None else nullcontext(given)


def _traces(model: PreTrainedModel) -> list[Any]:
    """Return what a job leaves on a base model that it does not give back as it was; equal where it left nothing."""
    # torch counts the writes to a tensor, so the weights themselves need not be compared. A conversion, as by
    # trainer.precision=bf16-true, counts as no write, but changes the dtype.
    tensors = [
        (name, tensor.dtype, tensor.device, tensor._version)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    ]
    # Gradient checkpointing and new tokens put hooks on layers, which would run in the next job too.
    num_hooks = sum(
        len(hooks) for module in model.modules() for key, hooks in vars(module).items() if key.endswith("_hooks")
    )
    return [*tensors, num_hooks, model.config.to_dict()]
