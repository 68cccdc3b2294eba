"""Base models: preparing, loading, applying LoRA, saving and merging adapters."""

import importlib.util
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from causal_lm_router.config import BaseModelConfig, BaseModelOrigin, LoraConfig
from causal_lm_router.files import (
    cache_dir,
    write_folder,
)
from causal_lm_router.models.hub import hub_answers
from causal_lm_router.models.tiny_model import make_tiny_model
from causal_lm_router.terminal import divert_output

logger = logging.getLogger(__name__)
transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def prepare_base_model(config: BaseModelConfig) -> str:
    """Return the hub name or folder to load the base model from; make packaged and tiny ones in the cache first.

    The folder appears whole or not at all; an existing one is used as it is.
    """
    if config.origin is BaseModelOrigin.hub:
        return config.name
    folder = cache_dir() / "base_models" / config.name
    if not (folder / "config.json").is_file():
        logger.info("preparing base model %s in %s", config.name, folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with write_folder(folder) as temporary:
                if config.origin is BaseModelOrigin.packaged:
                    _convert_packaged(config, temporary)
                else:
                    make_tiny_model(temporary)
        except FileExistsError:
            logger.info("another process prepared %s meanwhile", folder)
    return str(folder)


def _convert_packaged(config: BaseModelConfig, folder: Path) -> None:
    assert config.package is not None
    assert config.gguf_file is not None
    spec = importlib.util.find_spec(config.package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"base_model.package={config.package!r}: not installed; it carries the weights")
    package_dir = Path(spec.submodule_search_locations[0])
    files = sorted(package_dir.rglob(config.gguf_file))
    if len(files) != 1:
        raise ValueError(
            f"base_model.gguf_file={config.gguf_file!r}: matches {len(files)} files in {package_dir}, not 1"
        )
    source: dict[str, Any] = {"pretrained_model_name_or_path": str(files[0].parent), "gguf_file": files[0].name}
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
    except OSError as error:
        raise ValueError(_cannot_load(config, error)) from error
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        raise ValueError(f"base_model.name={config.name!r}: needs a fast tokenizer with an eos token")
    # Padding is masked by length, so it may be the end token.
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base_model(name_or_path: str, config: BaseModelConfig) -> PreTrainedModel:
    """Return the base model in `config.dtype` on the CPU.

    Raises:
        ValueError: the weights cannot be had.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name_or_path,
            **_source(name_or_path, config),
            dtype=getattr(torch, config.dtype),
            attn_implementation=config.attn_implementation,
        )
    except OSError as error:
        raise ValueError(_cannot_load(config, error)) from error
    if config.gradient_checkpointing:
        # With LoRA the embeddings are frozen, and a checkpointed layer needs an input that takes a gradient.
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()  # type: ignore[no-untyped-call]
    return model


def _source(name_or_path: str, config: BaseModelConfig) -> dict[str, Any]:
    # Told so, the hub's client takes what it has and does not try for minutes.
    offline = not Path(name_or_path).is_dir() and not hub_answers()
    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    return {**options, "local_files_only": offline}


def _cannot_load(config: BaseModelConfig, error: OSError) -> str:
    # The first line: transformers goes on with advice that does not fit here.
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return (
        f"base_model.name={config.name!r}: cannot be loaded ({reason}). On a machine without hub access, a licence for "
        "it or a GPU, use experiment=quickstart: its base model comes with the installation"
    )


def apply_lora(
    model: PreTrainedModel, config: LoraConfig, seed: int, new_token_ids: Sequence[int] = ()
) -> torch.nn.Module:
    """Return the model with a freshly initialised adapter (only its weights train), or as it is without LoRA.

    The rows of `new_token_ids` in embedding and head train too, and are saved with the adapter. Initialisation is a
    function of `seed` alone.

    Raises:
        ValueError: no layer has one of the target names, or `lora.num_layers` is more than the base model has.
    """
    if not config.use_lora:
        return model
    targets: list[str] | str = "all-linear" if config.target_modules == ["all-linear"] else list(config.target_modules)
    if targets != "all-linear":
        _check_targets(model, targets)
    lora = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        layers_to_transform=_last_layers(model, config.num_layers),
        trainable_token_indices=_token_rows(model, new_token_ids) if new_token_ids else None,
    )
    # PEFT draws the A matrices from torch's generator.
    torch.manual_seed(seed)
    try:
        adapted = peft.get_peft_model(model, lora)
    except ValueError as error:
        raise ValueError(f"lora.target_modules={config.target_modules}: {error}") from error
    if new_token_ids:
        _train_rows_alone(adapted)
    return adapted  # type: ignore[no-any-return]


def _last_layers(model: PreTrainedModel, num_layers: int | None) -> list[int] | None:
    if num_layers is None:
        return None
    num_all = model.config.num_hidden_layers
    if num_layers > num_all:
        raise ValueError(
            f"lora.num_layers must be 1..{num_all}, the layers of the base model, or null, got {num_layers}"
        )
    # Layer 0 is the one after the embeddings.
    return list(range(num_all - num_layers, num_all))


def _token_rows(model: PreTrainedModel, ids: Sequence[int]) -> list[int] | dict[str, list[int]]:
    """Return the rows to train, by layer where embedding and head do not share their weights."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if embedding.weight is head.weight:
        return list(ids)
    # PEFT knows layers by the last part of their path.
    names = {module: name.rpartition(".")[2] for name, module in model.named_modules()}
    return {names[embedding]: list(ids), names[head]: list(ids)}


def _train_rows_alone(model: torch.nn.Module) -> None:
    """Keep the new rows in float32, and let no gradient flow into the embeddings of a prompt.

    A prompt never holds a new token, so the gradient would be 0; but to compute it, the backward pass would go through
    every layer below the adapted ones.
    """
    for name, parameter in model.named_parameters():
        if "trainable_tokens_delta" in name:
            parameter.data = parameter.data.float()
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.detach())  # type: ignore[operator]


def _check_targets(model: PreTrainedModel, targets: Sequence[str]) -> None:
    """Raise ValueError for a name that no layer has: PEFT says nothing of it as long as another one fits."""
    paths = [path.removesuffix(".weight") for path, weight in model.named_parameters() if weight.ndim == 2]
    for target in targets:
        if not any(f".{path}".endswith(f".{target}") for path in paths):
            known = ", ".join(sorted({path.rpartition(".")[2] for path in paths}))
            raise ValueError(
                f"lora.target_modules must be all-linear or names of layers of the base model ({known}), got {target!r}"
            )


def save_weights(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the trained weights into a new folder, whole or not at all.

    With LoRA that is a PEFT adapter (safetensors), without it a full checkpoint. The tokenizer goes beside it.
    """
    with write_folder(folder) as temporary:
        model.save_pretrained(temporary)  # type: ignore[operator]
        tokenizer.save_pretrained(temporary)


def is_adapter(folder: Path) -> bool:
    """Return whether the folder holds a PEFT adapter; otherwise it holds a full checkpoint."""
    return (folder / "adapter_config.json").is_file()


def vllm_serves(folder: Path) -> bool:
    """Return whether vLLM can serve the adapter in a folder as it is; otherwise it has to be merged.

    vLLM knows neither DoRA nor trained token rows. Initialisations such as PiSSA change the base weights too.
    """
    adapter = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    plain_start = adapter.get("init_lora_weights", True) in (True, "gaussian")
    return plain_start and not adapter.get("use_dora") and not adapter.get("trainable_token_indices")


def load_trained(name_or_path: str, config: BaseModelConfig, weights_dir: Path) -> PreTrainedModel:
    """Return the base model with the weights of a run, its adapter merged into it."""
    if not is_adapter(weights_dir):
        return load_base_model(str(weights_dir), config)
    model = load_base_model(name_or_path, config)
    return peft.PeftModel.from_pretrained(model, str(weights_dir)).merge_and_unload()  # type: ignore[no-any-return]


def merge_adapter(name_or_path: str, config: BaseModelConfig, weights_dir: Path, folder: Path) -> None:
    """Write a checkpoint with the adapter merged, whole or not at all; transformers and vLLM load it as any other."""
    model = load_trained(name_or_path, config, weights_dir)
    tokenizer = load_tokenizer(name_or_path, config)
    with write_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
