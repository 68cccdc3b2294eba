"""From YAML under `conf/`, a run folder and command-line overrides to checked dataclasses."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, overload

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra

from causal_lm_router import config as schema
from causal_lm_router.config.checks import Settings
from causal_lm_router.config.composition_errors import COMPOSITION_ERRORS, describe_error
from causal_lm_router.config.honoured import check_honoured
from causal_lm_router.config.keys import SCHEMAS, VARIANTS
from causal_lm_router.config.overrides import allow_new_keys, quote_text, read_overrides
from causal_lm_router.config.plain import config_dict
from causal_lm_router.config.redact import remember_arguments, remember_secrets
from causal_lm_router.config.resolve import Schema, resolve_config
from causal_lm_router.config.run_config import register_run


def conf_dir() -> str:
    """Return the absolute path of the config folder: inside the installed package, else the checkout's `conf/`.

    Raises:
        FileNotFoundError: there is neither.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise FileNotFoundError(f"no conf/train.yaml in {package} or {package.parents[1]}: reinstall causal-lm-router")


def register_schemas() -> None:
    """Make the schemas known to Hydra; calling it again changes nothing."""
    # The schemas of whole commands, from which the files under conf/ start.
    store = ConfigStore.instance()
    for name, node in SCHEMAS.items():
        store.store(name=name, node=node)
    # Schemas of single choices lie in the group `hydra`, which --help leaves out.
    for group, (_, variants) in VARIANTS.items():
        for value, node in variants.items():
            store.store(group=f"hydra/schema/{group}", name=str(value), node=node)
    # What `register_run` fills; `--help` shows commands on runs without one.
    store.store(name="run_schema", node=schema.TrainConfig)
    store.store(name="run", node={})


def compose_config(overrides: list[str], config_name: str = "train") -> schema.TrainConfig:
    """Return the config that `causal-lm-router <config_name> <overrides>` would run with, outside a Hydra application.

    `${hydra:...}` values need the application.

    Raises:
        ValueError: an override, a file or a value that the schema or Hydra refuses.
    """
    register_schemas()
    return _compose(read_overrides(overrides), config_name, schema.TrainConfig)


@overload
def compose_on_run(
    command: Literal["evaluate"], run_dir: str | Path, overrides: Iterable[str]
) -> schema.EvaluateConfig: ...
@overload
def compose_on_run(command: Literal["route"], run_dir: str | Path, overrides: Iterable[str]) -> schema.RouteConfig: ...
def compose_on_run(command: str, run_dir: str | Path, overrides: Iterable[str]) -> Settings:
    """Return the config that a command on a run would run with, outside a Hydra application.

    Raises:
        FileNotFoundError: the folder is no run folder.
        ValueError: an override that the command does not honour, or that cannot be used.
    """
    register_schemas()
    check_honoured(command, overrides)
    words = [quote_text(f"run_dir={run_dir}"), *read_overrides(overrides)]
    register_run(command, words, required=True, takes_baselines=False)
    return _compose(words, command, SCHEMAS[f"{command}_schema"])


def _compose(overrides: list[str], config_name: str, target: type[Schema]) -> Schema:
    # First of all: what is wrong with an override is said with its value.
    remember_arguments(overrides)
    # A command that was run in this process before may have left its own.
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=conf_dir()):
        try:
            composed = compose(config_name=config_name, overrides=allow_new_keys(overrides))
        except COMPOSITION_ERRORS as error:
            raise ValueError(describe_error(error)) from error
        config = resolve_config(composed, target)
    remember_secrets(config_dict(config))
    return config
