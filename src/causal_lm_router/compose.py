"""From YAML under `conf/`, a run folder and command-line overrides to checked dataclasses."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from causal_lm_router import config as schema

Schema = TypeVar("Schema")
SCHEMAS: dict[str, type] = {
    "train_schema": schema.TrainConfig,
    "evaluate_schema": schema.EvaluateConfig,
    "route_schema": schema.RouteConfig,
    "prepare_schema": schema.PrepareConfig,
}


def conf_dir() -> str:
    """Absolute path of the config folder: the one inside the installed package, else the checkout's `conf/`."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise FileNotFoundError(f"no conf/train.yaml in {package} or {package.parents[1]}: reinstall causal-lm-router")


def register_schemas() -> None:
    """Make the schemas known to Hydra and the resolvers to OmegaConf; calling it again changes nothing."""
    store = ConfigStore.instance()
    for name, node in SCHEMAS.items():
        store.store(name=name, node=node)
    store.store(name="run", node={})
    OmegaConf.register_new_resolver("base_model_name", lambda name: Path(str(name)).name.lower(), replace=True)


def register_run(argv: list[str]) -> None:
    """Make the config of the run folder named by `run_dir=` in `argv` the node `run`, where commands on a run start.

    Without `run_dir=` the node stays empty, so that `--help` and completion work.

    Raises:
        FileNotFoundError: the folder or its config.yaml is missing.
    """
    run_dirs = [arg.removeprefix("run_dir=") for arg in argv if arg.startswith("run_dir=")]
    if run_dirs:
        node = load_run_config(Path(run_dirs[-1].strip("'\"")))
        ConfigStore.instance().store(name="run", node=node)


def load_run_config(run_dir: Path) -> dict[str, Any]:
    """Return the resolved config a run folder was made with, without its `run_dir` (the folder may have moved).

    Raises:
        FileNotFoundError: there is no config.yaml in the folder.
    """
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"run_dir={run_dir}: no config.yaml there, this is not a run folder")
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    loaded.pop("run_dir")
    return loaded


def resolve_config(composed: DictConfig, target: type[Schema]) -> Schema:
    """Return the composed config as a checked dataclass.

    The config is merged into a fresh schema first: a key added with `+key=` passes Hydra, but not this.

    Raises:
        ValueError: an unknown key, a value of the wrong type, a missing value, or a value its check refuses.
    """
    try:
        plain = OmegaConf.to_container(composed, resolve=True)
        merged = OmegaConf.merge(OmegaConf.structured(target), plain)
        resolved = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(f"config: {str(error).splitlines()[0]} (key: {error.full_key})") from error
    assert isinstance(resolved, target)
    return resolved


def compose_config(overrides: list[str], config_name: str = "train") -> schema.TrainConfig:
    """Return the config that `causal-lm-router <config_name> <overrides>` would run with, outside a Hydra application.

    `${now:...}` and `${hydra:...}` values need the application: pass `run_dir=...` where they matter.
    """
    register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=conf_dir()):
        composed = compose(config_name=config_name, overrides=overrides)
    return resolve_config(composed, schema.TrainConfig)


def dump_config(config: Any) -> str:
    """Return a config dataclass as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def config_dict(config: Any) -> dict[str, Any]:
    """Return a config dataclass as nested plain dictionaries, enum members as their values."""
    loaded: dict[str, Any] = yaml.safe_load(dump_config(config))
    return loaded
