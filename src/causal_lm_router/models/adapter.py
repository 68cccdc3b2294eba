"""Adapters: applying LoRA to a base model, saving trained weights, loading and merging them."""

import json
from collections.abc import Sequence
from pathlib import Path

import peft
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from causal_lm_router.config import BaseModelConfig, LoraConfig
from causal_lm_router.files import write_folder
from causal_lm_router.models.base_model import load_base_model, load_tokenizer


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
