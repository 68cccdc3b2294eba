"""LLMRouter's causal-LM configuration file, turned into a config of ours.

Keys, names and defaults are those of LLMRouter's causallm_router (github.com/ulab-uiuc/LLMRouter). An unknown key is
an error. Input files are looked for in the YAML file's folder first, then in the working directory;
`save_model_path`, which becomes the run folder, starts at the working directory.

What differs on purpose: the prompt is `prompt=candidates`, the loss counts the target alone, ties go to the cheapest
candidate where costs are known, and a generation that names no LLM is a parse failure instead of the first LLM.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from causal_lm_router.compose import compose_config
from causal_lm_router.config import TrainConfig
from causal_lm_router.sources.strict_json import decode_line, read_lines

DATA_KEYS = ("query_data_train", "query_data_test", "routing_data_train", "routing_data_test", "llm_data")
UNUSED_DATA_KEYS = ("query_embedding_data", "llm_embedding_data")
MODEL_KEYS = ("ini_model_path", "save_model_path", "load_model_path")
HPARAM_DEFAULTS: dict[str, Any] = {
    "base_model": "meta-llama/Llama-2-7b-hf",
    "use_lora": True,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.1,
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "merge_lora": True,
    "num_epochs": 3,
    "batch_size": 4,
    "gradient_accumulation_steps": 4,
    "learning_rate": 0.00002,
    "weight_decay": 0.01,
    "warmup_ratio": 0.1,
    "max_length": 512,
    "fp16": True,
    "logging_steps": 10,
    "save_steps": 100,
    "report_to": "none",
    "tensor_parallel_size": 1,
    "gpu_memory_utilization": 0.9,
    "max_new_tokens": 32,
    "temperature": 0.1,
    "top_p": 0.95,
}
OVERRIDE_KEYS = {
    "base_model": "base_model.name",
    "use_lora": "lora.use_lora",
    "lora_r": "lora.lora_r",
    "lora_alpha": "lora.lora_alpha",
    "lora_dropout": "lora.lora_dropout",
    "lora_target_modules": "lora.target_modules",
    "merge_lora": "lora.merge_lora",
    "num_epochs": "trainer.num_epochs",
    "batch_size": "trainer.batch_size",
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches",
    "learning_rate": "optim.learning_rate",
    "weight_decay": "optim.weight_decay",
    "warmup_ratio": "optim.warmup_ratio",
    "max_length": "prompt.max_length",
    "logging_steps": "trainer.log_every_n_steps",
    "save_steps": "trainer.checkpoint_every_n_steps",
    "tensor_parallel_size": "inference.tensor_parallel_size",
    "max_new_tokens": "inference.max_new_tokens",
    "temperature": "inference.temperature",
    "top_p": "inference.top_p",
}


@dataclass(frozen=True)
class LLMRouterFiles:
    """Files of the YAML that are read later."""

    query_data_test: Path | None

    def test_queries(self) -> list[dict[str, Any]]:
        """Return the rows of `data_path.query_data_test`; raise ValueError where the YAML names none."""
        if self.query_data_test is None:
            raise ValueError("data_path.query_data_test: not set, so route_batch needs a batch")
        return [decode_line(line) for _, line in read_lines(self.query_data_test)]


def read_llmrouter_yaml(path: Path) -> tuple[TrainConfig, LLMRouterFiles]:
    """Return the config that the YAML file stands for, and the files read later.

    Raises:
        ValueError: an unknown key, a key of the wrong kind, or a value that our checks refuse.
        FileNotFoundError: the YAML file, or a data file it names, is missing.
    """
    sections = _read_sections(path)
    data, model, hparam = (sections.get(name) or {} for name in ("data_path", "model_path", "hparam"))
    files = {key: _find_input(path, key, data[key]) for key in DATA_KEYS if data.get(key)}
    overrides = [
        "prompt=candidates",
        "evaluation=final_only",
        *_hparam_overrides({**HPARAM_DEFAULTS, **hparam}),
        *_data_overrides(path, files),
        _override("run_dir", model.get("save_model_path") or "saved_models/causallm_router"),
    ]
    return compose_config(overrides), LLMRouterFiles(files.get("query_data_test"))


def _read_sections(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"yaml_path={path}: no such file")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    allowed = {
        "data_path": (*DATA_KEYS, *UNUSED_DATA_KEYS),
        "model_path": MODEL_KEYS,
        "metric": ("weights",),
        "hparam": tuple(HPARAM_DEFAULTS),
        "api_endpoint": (),
    }
    _check_keys(path, "", loaded, tuple(allowed))
    for section, keys in allowed.items():
        if keys and loaded.get(section) is not None:
            _check_keys(path, f"{section}.", loaded[section], keys)
    weights = (loaded.get("metric") or {}).get("weights") or {}
    if any(weight for name, weight in weights.items() if name != "performance"):
        raise ValueError(f"{path}: metric.weights={weights}: only performance can have a weight other than 0")
    return dict(loaded)


def _check_keys(path: Path, prefix: str, found: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: {prefix.rstrip('.') or 'the file'} holds {found!r}, not keys and values")
    for key in found:
        if key not in allowed:
            raise ValueError(f"{path}: unknown key {prefix}{key}; allowed is {' | '.join(allowed)}")


def _find_input(yaml_path: Path, key: str, value: str) -> Path:
    places = [yaml_path.parent / value, Path(value)]
    for place in places:
        if place.exists():
            return place.absolute()
    tried = ", ".join(str(place.absolute()) for place in places)
    raise FileNotFoundError(f"{yaml_path}: data_path.{key}={value!r}: not found (tried {tried})")


def _hparam_overrides(hparam: Mapping[str, Any]) -> list[str]:
    on_gpu = _has_gpu()
    overrides = [_override(ours, hparam[theirs]) for theirs, ours in OVERRIDE_KEYS.items()]
    overrides.append(f"trainer={'gpu' if on_gpu else 'cpu'}")
    overrides.append(f"trainer.precision={'bf16-mixed' if on_gpu and hparam['fp16'] else '32-true'}")
    overrides.append(f"base_model.dtype={'bfloat16' if on_gpu else 'float32'}")
    if on_gpu:
        overrides.append(_override("+inference.engine_args.gpu_memory_utilization", hparam["gpu_memory_utilization"]))
    reports = ("none", "wandb", "tensorboard")
    if hparam["report_to"] not in reports:
        raise ValueError(f"hparam.report_to={hparam['report_to']!r}: allowed is {' | '.join(reports)}")
    overrides.append(f"tracking.wandb.mode={'auto' if hparam['report_to'] == 'wandb' else 'disabled'}")
    overrides.append(_override("tracking.tensorboard", hparam["report_to"] == "tensorboard"))
    return overrides


def _data_overrides(yaml_path: Path, files: Mapping[str, Path]) -> list[str]:
    if "routing_data_train" not in files:
        raise ValueError(f"{yaml_path}: data_path.routing_data_train is needed")
    overrides = ["data=llmrouter", _override("data.path", files["routing_data_train"]), "data.on_bad_row=error"]
    overrides.append(f"data.tie_break={'cheapest' if 'llm_data' in files else 'best_on_train'}")
    for theirs, ours in (("llm_data", "pool_path"), ("query_data_train", "query_path")):
        if theirs in files:
            overrides.append(_override(f"data.{ours}", files[theirs]))
    if "routing_data_test" in files:
        overrides += [_override("data.test_path", files["routing_data_test"]), "data.use_source_split=true"]
        overrides += ["data.validation_fraction=0.0"]
    return overrides


def _override(key: str, value: object) -> str:
    """Return a Hydra override; texts are quoted, so that any character may stand in them."""
    if isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    if isinstance(value, list):
        return f"{key}=[{','.join(_quoted(item) for item in value)}]"
    return f"{key}={value}" if isinstance(value, int | float) else f"{key}={_quoted(value)}"


def _quoted(value: object) -> str:
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
