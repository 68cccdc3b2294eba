"""Adapters: applying LoRA to a base model, saving trained weights, loading and merging them."""

import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from causal_lm_router.config import BaseModelConfig, LoraConfig
from causal_lm_router.files.checksums import DamagedError, add_checksums, check_files, read_checked
from causal_lm_router.files.writing import write_folder
from causal_lm_router.models.base_model import load_base_model, load_tokenizer

ADAPTER_SETTINGS, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NEGLIGIBLE = 1e-9
"""Entries of a B matrix below this change no weight of a base model by more than rounding does."""


def apply_lora(
    model: PreTrainedModel, config: LoraConfig, seed: int, new_token_ids: Sequence[int] = ()
) -> torch.nn.Module:
    """Return the model with a freshly initialised adapter (only its weights train), or as it is without LoRA.

    The rows of `new_token_ids` in embedding and head train too, and are saved with the adapter. Initialisation is a
    function of `seed` alone.

    Raises:
        ValueError: no layer has one of the target names, `lora.num_layers` is more than the base model has, or layers
            are named whose adapter could not be merged.
    """
    if not config.use_lora:
        return model
    targets: list[str] | str = "all-linear" if config.target_modules == ["all-linear"] else list(config.target_modules)
    if targets != "all-linear":
        _check_targets(model, targets, trains_rows=bool(new_token_ids))
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
        raise ValueError(
            f"lora.target_modules must be layers that an adapter fits, got {config.target_modules}: {error}"
        ) from error
    if targets != "all-linear":
        _check_adapted(adapted, config)
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
    if _is_tied(model):
        return list(ids)
    # PEFT knows layers by the last part of their path.
    return {path.rpartition(".")[2]: list(ids) for path in _ends(model)}


def _train_rows_alone(model: torch.nn.Module) -> None:
    """Keep the new rows in float32, and let no gradient flow into the embeddings of a prompt.

    A prompt never holds a new token, so the gradient would be 0; but to compute it, the backward pass would go through
    every layer below the adapted ones.
    """
    for name, parameter in model.named_parameters():
        if "trainable_tokens_delta" in name:
            parameter.data = parameter.data.float()
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.detach())  # type: ignore[operator]


def _check_targets(model: PreTrainedModel, targets: Sequence[str], *, trains_rows: bool) -> None:
    """Raise ValueError for a name that no layer has, and for embedding or head where their adapter cannot be merged.

    PEFT says nothing of a name without a layer as long as another one fits.
    """
    # A head that shares the embedding's weights is a layer of its own.
    weights = dict(model.named_parameters(remove_duplicate=False))
    paths = [path.removesuffix(".weight") for path, weight in weights.items() if weight.ndim == 2]
    for target in targets:
        if not any(_is_named(path, target) for path in paths):
            known = ", ".join(sorted({path.rpartition(".")[2] for path in paths}))
            raise ValueError(
                f"lora.target_modules must be all-linear or names of layers of the base model ({known}), got {target!r}"
            )
    ends = _ends(model)
    for target in targets:
        if any(_is_named(path, target) for path in ends) and (_is_tied(model) or trains_rows):
            reason = "train rows for new tokens" if trains_rows else "share their weights in this base model"
            names = " and ".join(path.rpartition(".")[2] for path in ends)
            raise ValueError(f"lora.target_modules must leave out {names}, which {reason}, got {target!r}")


def _check_adapted(adapted: peft.PeftModel, config: LoraConfig) -> None:
    """Raise ValueError for a target that got no adapter: PEFT is content with any one layer.

    Embeddings have no number, so `num_layers` leaves them out.
    """
    for target in config.target_modules:
        if not any(_is_named(path, target) for path in adapted.targeted_module_names):
            raise ValueError(
                f"lora.target_modules must be layers of the last {config.num_layers} (lora.num_layers), got {target!r}"
            )


def _is_named(path: str, target: str) -> bool:
    """Return whether a target names the layer at a path, as PEFT has it: by the path's last parts."""
    return f".{path}".endswith(f".{target}")


def _ends(model: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """Return embedding and head by their paths."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[no-untyped-call]
    return {path: module for path, module in model.named_modules() if module in ends}


def _is_tied(model: PreTrainedModel) -> bool:
    """Return whether the head has the weights of the embedding."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return embedding.weight is head.weight


def save_weights(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path, base_name: str | None = None
) -> None:
    """Write the trained weights into a new folder, whole or not at all.

    With LoRA that is a PEFT adapter (safetensors), without it a full checkpoint. The tokenizer goes beside it. An
    adapter's settings call the base model `base_name`, by default the folder or hub name that it was loaded from; our
    own loading takes the base model from the run's config.
    """
    with write_folder(folder) as temporary:
        model.save_pretrained(temporary)  # type: ignore[operator]
        tokenizer.save_pretrained(temporary)
        if base_name is not None and is_adapter(temporary):
            settings = temporary / ADAPTER_SETTINGS
            named = json.loads(settings.read_text(encoding="utf-8")) | {"base_model_name_or_path": base_name}
            settings.write_text(json.dumps(named, indent=2, sort_keys=True), encoding="utf-8")
        add_checksums(temporary)


def is_adapter(folder: Path) -> bool:
    """Return whether the folder holds a PEFT adapter; otherwise it holds a full checkpoint."""
    return (folder / ADAPTER_SETTINGS).is_file()


def changes_nothing(folder: Path) -> bool:
    """Return whether the adapter in a folder leaves the base model as it is: all its B matrices are 0, or nearly so.

    They are 0 before the first step of training. Only the adapter's file is read.
    """
    with safe_open(folder / ADAPTER_WEIGHTS, "pt") as weights:
        names = [name for name in weights.keys() if "lora_B" in name or "lora_embedding_B" in name]  # noqa: SIM118
        return bool(names) and all(float(weights.get_tensor(name).abs().max()) < _NEGLIGIBLE for name in names)


def vllm_serves(folder: Path) -> bool:
    """Return whether vLLM can serve the adapter in a folder as it is; otherwise it has to be merged.

    vLLM knows neither DoRA nor trained token rows. Initialisations such as PiSSA change the base weights too.

    Raises:
        ValueError: the adapter's settings cannot be read.
    """
    try:
        adapter = json.loads(read_checked(folder / ADAPTER_SETTINGS))
    except DamagedError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(_unreadable(folder / ADAPTER_SETTINGS, error)) from error
    plain_start = adapter.get("init_lora_weights", True) in (True, "gaussian")
    return plain_start and not adapter.get("use_dora") and not adapter.get("trainable_token_indices")


def load_trained(name_or_path: str, config: BaseModelConfig, weights_dir: Path) -> PreTrainedModel:
    """Return the base model with the weights of a run, its adapter merged into it.

    Raises:
        ValueError: a file of the weights is damaged or cannot be read, or the adapter is not one of this base model or
            cannot be merged.
    """
    check_files(weights_dir)
    if not is_adapter(weights_dir):
        return load_base_model(str(weights_dir), config)
    model = load_base_model(name_or_path, config)
    is_tied = _is_tied(model)
    adapted = _load_adapter(model, weights_dir)
    # Merged, the adapter of one of them would change the other too.
    if is_tied and any(isinstance(end, BaseTunerLayer) for end in _ends(adapted.base_model.model).values()):
        raise ValueError(
            f"{weights_dir / ADAPTER_SETTINGS}: target_modules must leave out embedding and head to be merged, since "
            f"they share their weights in this base model, got {sorted(adapted.targeted_module_names)}"
        )
    return adapted.merge_and_unload()  # type: ignore[no-any-return]


def _load_adapter(model: PreTrainedModel, folder: Path) -> peft.PeftModel:
    """Return the model with the adapter in a folder, of which each weight has its layer and each layer its weights.

    Raises:
        ValueError: the adapter cannot be read, or is one of another base model.
    """
    path = folder / ADAPTER_WEIGHTS
    try:
        # Before PEFT, which would look for a missing file on the hub.
        with safe_open(path, framework="pt") as file:
            found = set(file.keys())
        _check_settings(folder / ADAPTER_SETTINGS)
        adapted = peft.PeftModel.from_pretrained(model, str(folder))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(_unreadable(folder, error)) from error
    # PEFT leaves a weight without a file as it was drawn, and a weight without a layer out.
    expected = set(peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
    # An adapter on the embeddings carries those of the base model too.
    strays = sorted(expected ^ {name for name in found if ".base_layer." not in name})
    if strays:
        raise ValueError(f"{path} must be an adapter of the base model, got one that differs in {strays[0]}")
    return adapted


def _unreadable(path: Path, error: Exception) -> str:
    # The first lines, cut: what follows is a list of all weights, or advice about the hub.
    reason = shorten(" ".join(str(error).splitlines()[:2]), 200) or type(error).__name__
    return f"{path} must be an adapter of the base model, got one that cannot be read: {reason}"


def _check_settings(path: Path) -> None:
    """Raise ValueError where an adapter's settings would have PEFT make anything but LoRA, or import what they name."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    for key, allowed in {"peft_type": "LORA", "megatron_config": None, "auto_mapping": None}.items():
        if settings.get(key, allowed) != allowed:
            raise ValueError(f"{key} must be {json.dumps(allowed)}, got {settings[key]!r}")


def merge_adapter(name_or_path: str, config: BaseModelConfig, weights_dir: Path, folder: Path) -> None:
    """Write a checkpoint with the adapter merged, whole or not at all; transformers and vLLM load it as any other."""
    model = load_trained(name_or_path, config, weights_dir)
    tokenizer = load_tokenizer(name_or_path, config)
    with write_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        add_checksums(temporary)
