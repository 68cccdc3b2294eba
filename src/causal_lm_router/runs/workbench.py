"""Workbench: what the jobs of one process share, so that only the first of them loads it.

At most one of each is kept: data, tokenizer, base model, vLLM engine. No figure of a job depends on the jobs before it.
"""

import atexit
import ctypes
import functools
import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from causal_lm_router.config import BaseModelConfig, DataConfig, LoraConfig, TrainConfig
from causal_lm_router.data.prepared import PreparedData, prepare_data
from causal_lm_router.generation.generator import Generator, open_generator
from causal_lm_router.generation.vllm_engine import VllmEngine
from causal_lm_router.models.base_model import apply_lora, load_base_model, load_tokenizer
from causal_lm_router.models.new_tokens import base_model_source

Value = TypeVar("Value")
Tokens = Mapping[str, str]
NO_TOKENS: Tokens = {}


class Workbench:
    """Keeps what jobs have in common, for a process or for a `with` block; `close` drops all of it.

    `keeps_base_model=False` frees the base model's memory after training, as a process of a single job wants it.
    """

    def __init__(self, *, keeps_base_model: bool = True) -> None:
        self._keeps_base_model = keeps_base_model
        self._data = _Kept[PreparedData]()
        self._tokenizer = _Kept[PreTrainedTokenizerBase]()
        self._base_model = _Kept[PreTrainedModel]()
        self._engine = VllmEngine()

    def data(self, config: DataConfig) -> PreparedData:
        """Return the configured data; files are read once, however they change meanwhile. Raises as `prepare_data`."""
        return self._data.get(repr(config), lambda: prepare_data(config))

    def tokenizer(self, config: BaseModelConfig, new_tokens: Tokens = NO_TOKENS) -> PreTrainedTokenizerBase:
        """Return the base model's tokenizer, with new tokens if there are any. Raises as `load_tokenizer`."""
        source = base_model_source(config, new_tokens)
        return self._tokenizer.get(repr((source, config)), lambda: load_tokenizer(source, config))

    @contextmanager
    def model(
        self, config: BaseModelConfig, lora: LoraConfig, seed: int, new_tokens: Tokens = NO_TOKENS
    ) -> Iterator[torch.nn.Module]:
        """Yield the base model with a fresh adapter, as `apply_lora` makes it.

        The base model is kept afterwards if it is just as it was loaded once the adapter is taken off again. Otherwise,
        and where the block raises or all weights were trained, it is dropped.
        """
        source = base_model_source(config, new_tokens)
        tokenizer = self.tokenizer(config, new_tokens)
        new_token_ids = [tokenizer.convert_tokens_to_ids(token) for token in new_tokens]
        key = repr((source, config))
        base_model = self._base_model.get(key, lambda: load_base_model(source, config))
        self._base_model.drop()
        state = _state(base_model)
        model = apply_lora(base_model, lora, seed, new_token_ids)  # type: ignore[arg-type]
        yield model
        if self._keeps_base_model and lora.use_lora:
            base_model = model.unload().eval().requires_grad_(True)  # type: ignore[operator]
            if _state(base_model) == state:
                self._base_model.put(key, base_model)

    def generator(self, config: TrainConfig, max_prompt_tokens: int, new_tokens: Tokens = NO_TOKENS) -> Generator:
        """Return a generator of the config; those of vLLM are to be used one after another, they share the engine."""
        base_model, tokenizer = config.base_model, self.tokenizer(config.base_model, new_tokens)
        source = base_model_source(base_model, new_tokens)
        return open_generator(
            config.inference, base_model, config.lora, source, tokenizer, max_prompt_tokens, self._engine
        )

    def release(self) -> None:
        """Give back the memory that a finished job leaves, so that a process of many jobs does not grow.

        A trainer and its module refer to each other, and glibc keeps most of what was freed for later use.
        """
        gc.collect()
        if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)

    def close(self) -> None:
        """Drop everything and end the engine; what is asked for afterwards is made anew."""
        for kept in (self._data, self._tokenizer, self._base_model):
            kept.drop()
        self._engine.close()

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


class _Kept(Generic[Value]):
    """The value that was made last, for as long as the same is asked for."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._value: Value | None = None

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        if self._key != key or self._value is None:
            self.drop()
            self.put(key, make())
        assert self._value is not None
        return self._value

    def put(self, key: str, value: Value) -> None:
        self._key, self._value = key, value

    def drop(self) -> None:
        self._key = self._value = None


def _state(model: PreTrainedModel) -> list[Any]:
    """Everything about a model but the bits of its weights, of which it says whether they were written to."""
    state: list[Any] = [model.config.to_dict()]
    for name, module in model.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, bool | int | float | str)}
        hooks = {key: len(value) for key, value in vars(module).items() if key.endswith("_hooks")}
        state.append((name, type(module), sorted(vars(module)), plain, hooks))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        look = (type(tensor), tensor.dtype, tensor.shape, tensor.device, tensor.requires_grad, tensor.grad is None)
        state.append((name, *look, tensor._version))
    return state
