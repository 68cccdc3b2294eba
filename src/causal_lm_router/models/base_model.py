"""Base models: preparing a packaged or tiny one, loading one with its tokenizer."""

import hashlib
import importlib.util
import inspect
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from causal_lm_router.config import BaseModelConfig, BaseModelOrigin
from causal_lm_router.config.checks import AUTO
from causal_lm_router.files.checksums import make_cached
from causal_lm_router.files.source_code import code_alone
from causal_lm_router.files.writing import cache_dir
from causal_lm_router.models import tiny_model
from causal_lm_router.models.hub import cannot_load, hub_answers
from causal_lm_router.models.new_tokens import extend_base_model
from causal_lm_router.models.packed_rows import PACKED
from causal_lm_router.models.version import hash_files, model_version
from causal_lm_router.terminal import divert_output

logger = logging.getLogger(__name__)
transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def base_model_source(config: BaseModelConfig, new_tokens: Mapping[str, str]) -> str:
    """Return the hub name or folder to load the base model from, with `new_tokens` (token -> text) in its vocabulary.

    Raises:
        ValueError: the base model or its tokenizer cannot be had.
    """
    source = prepare_base_model(config)
    if not new_tokens:
        return source

    def load() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        # In the dtype of its file, so that programs that load it later get the dtype of the base model.
        return _load_weights(source, config, "auto"), load_tokenizer(source, config)

    return extend_base_model(config.name, find_version(source, config), load, new_tokens)


def prepare_base_model(config: BaseModelConfig) -> str:
    """Return the hub name or folder to load the base model from; make packaged and tiny ones in the cache first.

    The folder's name ends in a hash of what it is made from. It appears whole or not at all, and is made anew where it
    is damaged.

    Raises:
        ValueError: the package with the weights is not installed, or has not exactly one such file.
    """
    if config.origin is BaseModelOrigin.hub:
        return config.name
    make: Callable[[Path], None]
    if config.origin is BaseModelOrigin.packaged:
        gguf = _find_packaged(config)
        made_from, make = hash_files(gguf.parent, [Path(gguf.name)]), partial(_convert_packaged, gguf)
    else:
        made_from, make = code_alone(inspect.getsource(tiny_model)), tiny_model.make_tiny_model
    version = hashlib.sha256(f"{made_from} {transformers.__version__}".encode()).hexdigest()[:12]
    folder = cache_dir() / "base_models" / f"{config.name}-{version}"
    make_cached(folder, make, f"preparing base model {config.name}")
    return str(folder)


def _find_packaged(config: BaseModelConfig) -> Path:
    assert config.package is not None
    assert config.gguf_file is not None
    spec = importlib.util.find_spec(config.package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"base_model.package must be an installed package, got {config.package!r}; it carries the weights"
        )
    package_dir = Path(spec.submodule_search_locations[0])
    files = sorted(package_dir.rglob(config.gguf_file))
    if len(files) != 1:
        raise ValueError(
            f"base_model.gguf_file must match one file in {package_dir}, got {config.gguf_file!r}, which matches "
            f"{len(files)}"
        )
    return files[0]


def _convert_packaged(gguf: Path, folder: Path) -> None:
    source: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    # Float32 holds every value of a quantised format, so nothing is lost before `base_model.dtype` is applied.
    dequantize = GgufConfig(dequantize=True)
    with divert_output():  # a bar that no setting turns off
        model = AutoModelForCausalLM.from_pretrained(**source, quantization_config=dequantize, dtype=torch.float32)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def load_tokenizer(name_or_path: str, config: BaseModelConfig) -> PreTrainedTokenizerBase:
    """Return the tokenizer, with a padding token (eos where the base model has none).

    Raises:
        ValueError: it cannot be loaded, has no eos token, or is not a fast tokenizer (offsets are needed).
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **_source(name_or_path, config))
    except (OSError, ImportError, ValueError) as error:
        raise ValueError(_cannot_load(config, error)) from error
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        raise ValueError(f"base_model.name must have a fast tokenizer with an end token, got {config.name!r}")
    # Padding is masked by length, so it may be the end token.
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def find_version(name_or_path: str, config: BaseModelConfig) -> str:
    """Return a hash of the base model's files: see `model_version`.

    Raises:
        ValueError: they cannot be had.
    """
    try:
        return model_version(name_or_path, config.revision)
    except OSError as error:
        raise ValueError(_cannot_load(config, error)) from error


def load_base_model(name_or_path: str, config: BaseModelConfig) -> PreTrainedModel:
    """Return the base model in `config.dtype` on the CPU.

    Raises:
        ValueError: the weights cannot be had.
    """
    model = _load_weights(name_or_path, config, config.dtype)
    if config.gradient_checkpointing:
        # With LoRA the embeddings are frozen, and a checkpointed layer needs an input that takes a gradient.
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()  # type: ignore[no-untyped-call]
    return model


def _load_weights(name_or_path: str, config: BaseModelConfig, dtype: str) -> PreTrainedModel:
    kernel = config.attn_implementation
    # GPUs have kernels that are fast on padded rows.
    if kernel == AUTO:
        kernel = "sdpa" if torch.cuda.is_available() else PACKED
    options = {**_source(name_or_path, config), "attn_implementation": kernel}
    options["use_safetensors"] = True  # the older format is a pickle
    try:
        return AutoModelForCausalLM.from_pretrained(name_or_path, dtype=dtype, **options)
    except (OSError, ImportError, ValueError, SafetensorError) as error:
        raise ValueError(_cannot_load(config, error)) from error


def _source(name_or_path: str, config: BaseModelConfig) -> dict[str, Any]:
    # Told so, the hub's client takes what it has and does not try for minutes.
    offline = not Path(name_or_path).is_dir() and not hub_answers()
    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    return {**options, "local_files_only": offline}


def _cannot_load(config: BaseModelConfig, error: Exception) -> str:
    """Return in one line which setting the error is about, and why."""
    text, kernel = str(error), config.attn_implementation
    # The first line: transformers goes on with advice that does not fit here.
    reason = shorten(next(iter(text.splitlines()), type(error).__name__), 300)
    if "trust_remote_code" in text and not config.trust_remote_code:
        return f"base_model.trust_remote_code must be true for {config.name!r}, which comes with code, got false"
    # Kernels of other packages and of the hub; these two come with torch.
    if kernel not in (AUTO, PACKED, "sdpa", "eager") and (isinstance(error, ImportError) or kernel in text):
        allowed = "auto, packed, sdpa, eager or a kernel installed here"
        return f"base_model.attn_implementation must be {allowed}, got {kernel!r} ({reason})"
    return cannot_load(config, reason)
