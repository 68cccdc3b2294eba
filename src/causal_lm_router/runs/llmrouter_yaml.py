"""LLMRouter's causal-LM configuration file, turned into a config of ours.

Keys, names and defaults are those of LLMRouter's causallm_router (github.com/ulab-uiuc/LLMRouter). An unknown key is
an error. Data files are looked for in the YAML file's folder first, then in the working directory. `save_model_path`,
which becomes the run folder, and `load_model_path`, the run folder to route with (or the `merged` folder inside it),
start at the working directory. Read but without effect: the embedding files, `ini_model_path`, `api_endpoint`, and
`gpu_memory_utilization` where there is no GPU.

What differs on purpose: the prompt is `prompt=candidates`, the loss counts the target alone, ties go to the cheapest
candidate where costs are known, a generation that names no LLM is a parse failure instead of the first LLM, and code
that comes with a base model is not run.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from causal_lm_router.config import TrainConfig
from causal_lm_router.config.compose import compose_config, conf_dir
from causal_lm_router.config.overrides import quote_text
from causal_lm_router.data.sources.queries import read_query_file

DATA_KEYS = ("query_data_train", "query_data_test", "routing_data_train", "routing_data_test", "llm_data")
UNUSED_DATA_KEYS = ("query_embedding_data", "llm_embedding_data")
MODEL_KEYS = ("ini_model_path", "save_model_path", "load_model_path")
REPORTS = ("none", "wandb", "tensorboard")
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
    """Files of the YAML that are read later; `load_run_dir` is the run folder to route with."""

    query_data_test: Path | None
    load_run_dir: Path

    def test_queries(self, max_chars: int) -> list[dict[str, Any]]:
        """Return the rows of `data_path.query_data_test`.

        Raises:
            ValueError: the YAML names none, or a row has no usable query; then file and line are named.
        """
        if self.query_data_test is None:
            raise ValueError("data_path.query_data_test must be set where route_batch gets no batch, got None")
        return list(read_query_file(self.query_data_test, max_chars))


def read_llmrouter_yaml(path: Path) -> tuple[TrainConfig, LLMRouterFiles]:
    """Return the config that the YAML file stands for, and the files read later.

    Raises:
        ValueError: an unknown key, a key of the wrong kind, or a value that our checks refuse; file and key are named.
        FileNotFoundError: the YAML file, or a data file it names, is missing.
    """
    data, model, hparam = _read_sections(path)
    files = {key: _find_input(path, key, data[key]) for key in DATA_KEYS if data.get(key)}
    save_model_path = model.get("save_model_path") or "saved_models/causallm_router"
    load_model_path = Path(model.get("load_model_path") or save_model_path)
    # LLMRouter lists the candidates in its prompt and evaluates once, at the end.
    overrides = [
        "prompt=candidates",
        "evaluation=final_only",
        *_hparam_overrides(hparam),
        *_data_overrides(path, files),
        _override("run_dir", save_model_path),
    ]
    try:
        config = compose_config(overrides)
    except ValueError as error:
        raise ValueError(f"{path}: {_in_their_words(str(error))}") from error
    # LLMRouter routes with the merged checkpoint, which lies inside our run folder.
    load_run_dir = load_model_path.parent if load_model_path.name == "merged" else load_model_path
    return config, LLMRouterFiles(files.get("query_data_test"), load_run_dir)


def _read_sections(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the checked sections `data_path`, `model_path` and `hparam`, the last with all defaults.

    Raises:
        ValueError: a section has an unknown key or a value of the wrong kind; file and key are named.
        FileNotFoundError: there is no such file.
    """
    loaded = _load(path)
    _check_keys(path, "", loaded, ("data_path", "model_path", "metric", "hparam", "api_endpoint"))
    data = _section(path, loaded, "data_path", (*DATA_KEYS, *UNUSED_DATA_KEYS))
    model = _section(path, loaded, "model_path", MODEL_KEYS)
    # An empty path is allowed: LLMRouter's own file leaves `ini_model_path` empty.
    for name, section in {"data_path": data, "model_path": model}.items():
        for key, value in section.items():
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{path}: {name}.{key} must be a path, got {value!r}")
    # The metric says what the best candidate is best at. Our labels know the performance alone.
    metric = _section(path, loaded, "metric", ("weights",))
    weights = _section(path, metric, "weights", ("performance", "cost", "llm_judge"), prefix="metric.")
    for name, weight in weights.items():
        if name != "performance" and weight:
            raise ValueError(f"{path}: metric.weights.{name} must be 0, since only performance counts, got {weight!r}")
    # Kinds are checked here; ranges are checked by our own config, under the names of our keys.
    hparam = _section(path, loaded, "hparam", tuple(HPARAM_DEFAULTS))
    for key, value in hparam.items():
        _check_kind(path, key, value)
    return data, model, {**HPARAM_DEFAULTS, **hparam}


def _load(path: Path) -> Any:
    """Return what the file holds.

    Raises:
        ValueError: it is not YAML, or a key stands twice.
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"yaml_path must be a file, got {str(path)!r}")
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # PyYAML spreads its message over several lines.
        raise ValueError(f"{path} must be YAML, got: {' '.join(str(error).split())}") from error


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Plain YAML keeps the last of equal keys without a word, so a setting would be lost.
        keys = [str(key.value) for key, _ in node.value]
        if repeated := sorted({key for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(
                None, None, f"a key must stand once in its place, got twice {repeated}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _section(path: Path, loaded: Mapping[str, Any], name: str, keys: Sequence[str], prefix: str = "") -> dict[str, Any]:
    """Return the section of that name, whose keys are among `keys`; a section left out or left empty has none."""
    section = {} if loaded.get(name) is None else loaded[name]
    _check_keys(path, f"{prefix}{name}.", section, keys)
    return dict(section)


def _check_keys(path: Path, prefix: str, found: Any, allowed: Sequence[str]) -> None:
    """Check that `found` is a mapping with no other keys.

    Raises:
        ValueError: it is no mapping, or has another key.
    """
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: {prefix.rstrip('.') or 'the file'} must hold keys and values, got {found!r}")
    for key in found:
        if key not in allowed:
            raise ValueError(f"{path}: the key {prefix}{key} is unknown; it must be one of {' | '.join(allowed)}")


def _check_kind(path: Path, key: str, value: Any) -> None:
    """Check that a value of `hparam` is of the kind of its default.

    Raises:
        ValueError: it is of another kind.
    """
    # Python counts a bool as an integer; here `true` is no number.
    match HPARAM_DEFAULTS[key]:
        case bool():
            fits, kind = isinstance(value, bool), "true or false"
        case int():
            fits, kind = isinstance(value, int) and not isinstance(value, bool), "an integer"
        case float():
            fits, kind = isinstance(value, int | float) and not isinstance(value, bool), "a number such as 0.00002"
        case list():
            fits, kind = isinstance(value, list) and all(isinstance(item, str) for item in value), "a list of names"
        case _:
            fits, kind = isinstance(value, str), "a text"
    if key == "report_to":
        fits, kind = value in REPORTS, f"one of {' | '.join(REPORTS)}"
    if not fits:
        raise ValueError(f"{path}: hparam.{key} must be {kind}, got {value!r}")


def _in_their_words(text: str) -> str:
    """Return an error's text with the YAML's name of a key where a line of it starts with ours."""
    for theirs, ours in OVERRIDE_KEYS.items():
        text = re.sub(rf"^{re.escape(ours)}(?= must )", f"hparam.{theirs}", text, flags=re.M)
    return text


def _find_input(yaml_path: Path, key: str, value: str) -> Path:
    """Return the data file as an absolute path.

    Raises:
        FileNotFoundError: it lies neither beside the YAML file nor below the working directory.
    """
    places = [yaml_path.parent / value, Path(value)]
    for place in places:
        if place.exists():
            return place.absolute()
    tried = ", ".join(str(place.absolute()) for place in places)
    raise FileNotFoundError(f"{yaml_path}: data_path.{key} must be a file at one of {tried}, got {value!r}")


def _hparam_overrides(hparam: Mapping[str, Any]) -> list[str]:
    """Return overrides for `hparam`, and for the device of this machine, which LLMRouter's file does not name."""
    import torch

    on_gpu = torch.cuda.is_available()
    overrides = [_override(ours, hparam[theirs]) for theirs, ours in OVERRIDE_KEYS.items() if theirs != "base_model"]
    overrides.insert(0, _choose_base_model(hparam["base_model"]))
    # Half precision is for GPUs. It is bfloat16 in place of fp16, since that needs no loss scaling.
    overrides.append(f"trainer={'gpu' if on_gpu else 'cpu'}")
    overrides.append(f"trainer.precision={'bf16-mixed' if on_gpu and hparam['fp16'] else '32-true'}")
    overrides.append(f"base_model.dtype={'bfloat16' if on_gpu else 'float32'}")
    # It is a share of GPU memory, so it says nothing about a CPU.
    if on_gpu:
        overrides.append(_override("+inference.engine_args.gpu_memory_utilization", hparam["gpu_memory_utilization"]))
    # One key of LLMRouter's names the tracker; ours are switched one by one.
    overrides.append(f"tracking.wandb.mode={'auto' if hparam['report_to'] == 'wandb' else 'disabled'}")
    overrides.append(_override("tracking.tensorboard", hparam["report_to"] == "tensorboard"))
    return overrides


def _choose_base_model(name: str) -> str:
    """Return the override for a base model: one of our choices, such as `smollm2_135m`, or a hub name or folder."""
    files = (Path(conf_dir()) / "base_model").glob("*.yaml")
    is_choice = name in {path.stem for path in files} and not Path(name).is_dir()
    return f"base_model={name}" if is_choice else _override("base_model.name", name)


def _data_overrides(yaml_path: Path, files: Mapping[str, Path]) -> list[str]:
    """Return overrides for the data files, which are read as LLMRouter's source.

    Raises:
        ValueError: no file to train on is named.
    """
    if "routing_data_train" not in files:
        raise ValueError(f"{yaml_path}: data_path.routing_data_train must be a path, got None")
    # A file made for LLMRouter is whole, so a row that cannot be used is a mistake.
    overrides = ["data=llmrouter", _override("data.path", files["routing_data_train"]), "data.on_bad_row=error"]
    # Costs are known where the pool file has prices.
    overrides.append(f"data.tie_break={'cheapest' if 'llm_data' in files else 'best_on_train'}")
    for theirs, ours in (("llm_data", "pool_path"), ("query_data_train", "query_path")):
        if theirs in files:
            overrides.append(_override(f"data.{ours}", files[theirs]))
    # A test file of its own leaves all other queries to training, as in LLMRouter.
    if "routing_data_test" in files:
        overrides += [_override("data.test_path", files["routing_data_test"]), "data.use_source_split=true"]
        overrides += ["data.validation_fraction=0.0"]
    return overrides


def _override(key: str, value: object) -> str:
    """Return a Hydra override; texts are quoted, so that any character may stand in them."""
    match value:
        case bool():
            return f"{key}={str(value).lower()}"
        case list():
            return f"{key}=[{','.join(quote_text(f'={item}').removeprefix('=') for item in value)}]"
        case int() | float():
            return f"{key}={value}"
    return quote_text(f"{key}={value}")
