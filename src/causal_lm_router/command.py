"""What every Hydra command shares: compose, check, run one job, and say errors in one line."""

import sys
from collections.abc import Callable
from typing import TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from causal_lm_router.compose import conf_dir, register_run, register_schemas, resolve_config

Schema = TypeVar("Schema")


def run_command(config_name: str, schema: type[Schema], job: Callable[[Schema], object]) -> None:
    """Run `job` once a composed config (once a run, or once per job of a sweep) of `conf/<config_name>.yaml`.

    Bad input (ValueError, OSError) ends a single run with one line on standard error and status 1; in a sweep it is
    raised, so that the launcher learns which job failed.
    """

    def application(composed: DictConfig) -> None:
        try:
            job(resolve_config(composed, schema))
        except (ValueError, OSError) as error:
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise
            fail(error)

    register_schemas()
    try:
        register_run(sys.argv)
        decorate = hydra.main(version_base="1.3", config_path=conf_dir(), config_name=config_name)
    except OSError as error:
        fail(error)
    decorate(application)()


def fail(error: Exception) -> None:
    """Print the error in one line and leave with status 1."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(1)
