"""What every Hydra command shares: compose, check, run one job, and say errors in one line."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from causal_lm_router.compose import conf_dir, register_run, register_schemas, resolve_config

Schema = TypeVar("Schema")


def run_command(
    config_name: str, schema: type[Schema], job: Callable[[Schema], object], *, on_run: bool = False
) -> None:
    """Run `job` once a composed config (once a run, or once per job of a sweep) of `conf/<config_name>.yaml`.

    Bad input (ValueError, OSError) ends a single run with one line on standard error and status 1; in a sweep it is
    raised, so that the launcher learns which job failed. With `on_run` the config starts from that of `run_dir=...`.
    """

    def application(composed: DictConfig) -> None:
        try:
            job(resolve_config(composed, schema))
        except (ValueError, OSError) as error:
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise
            fail(error)

    # Threads that spin while they wait slow a CPU run down several times over as soon as another job shares the cores.
    # The OpenMP runtime reads this once, when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    register_schemas()
    try:
        if on_run:
            register_run(sys.argv)
        decorate = hydra.main(version_base="1.3", config_path=conf_dir(), config_name=config_name)
    except OSError as error:
        fail(error)
    decorate(application)()


def fail(error: Exception) -> None:
    """Print the error in one line and leave with status 1."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(1)
