"""What every Hydra command shares: compose, check, run one job, and say errors in one line."""

import logging
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from hydra.types import RunMode
from omegaconf import DictConfig

from causal_lm_router.commands.command_line import asks_for_help, is_showing, own_folders, read_words
from causal_lm_router.commands.errors import end_quietly, fail
from causal_lm_router.commands.help import print_help
from causal_lm_router.commands.own_folder import held
from causal_lm_router.config import TrainConfig
from causal_lm_router.config.checks import Settings
from causal_lm_router.config.compose import conf_dir, register_schemas
from causal_lm_router.config.composition_errors import COMPOSITION_ERRORS, describe_error
from causal_lm_router.config.overrides import allow_new_keys, quote_text
from causal_lm_router.config.permissions import to_give_again
from causal_lm_router.config.plain import config_dict
from causal_lm_router.config.redact import redact_composed, remember_arguments, remember_secrets
from causal_lm_router.config.resolve import resolve_config
from causal_lm_router.config.run_config import register_run
from causal_lm_router.files.locks import LOCK
from causal_lm_router.files.writing import write_text
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.terminal import log_to_file, show_bars

Schema = TypeVar("Schema", bound=Settings)
# The environment variable that asks for the traceback of bad input.
TRACEBACK = "HYDRA_FULL_ERROR"


def run_command(
    config_name: str,
    schema: type[Schema],
    job: Callable[[Schema], object],
    *,
    on_run: bool = False,
    on_baseline: bool = False,
) -> None:
    """Run `job` with the composed config of `conf/<config_name>.yaml`: once, or once per job of a sweep.

    Bad input (a config that does not compose, ValueError, OSError) ends a single run with one line on standard error,
    status 1 and no empty folder; in a sweep it is raised, so that the launcher learns which job failed. With `on_run`
    the config starts from that of `run_dir=...` (a baseline's too with `on_baseline`), and settings that the command
    does not honour are refused. The command is called as its config.
    """
    shows_traceback = os.environ.get(TRACEBACK) == "1"
    # Threads that spin while they wait slow a CPU run down several times over as soon as another job shares the cores.
    # The OpenMP runtime reads this once, when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Warnings of libraries become log records, which the terminal does not show.
    logging.captureWarnings(True)
    register_schemas()
    application = _make_application(config_name, schema, job, shows_traceback)
    remember_arguments(sys.argv[1:])
    try:
        if asks_for_help(sys.argv[1:]):
            print_help(config_name, own_folders(sys.argv[1:]))
            return
        sys.argv[1:] = read_words(config_name, sys.argv[1:], on_run=on_run)
        if on_run:
            # Help and completion need no run.
            shows = is_showing(sys.argv[1:])
            register_run(config_name, sys.argv[1:], required=not shows, takes_baselines=on_baseline)
        sys.argv[1:] = allow_new_keys(sys.argv[1:])
        # With this set Hydra hands errors on instead of printing them over several lines.
        with held, env_override({TRACEBACK: "1"}):
            hydra.main(version_base="1.3", config_path=conf_dir(), config_name=config_name)(application)()
    except BrokenPipeError:
        end_quietly()
    except (*COMPOSITION_ERRORS, ValueError, OSError) as error:
        if shows_traceback:
            raise
        fail(describe_error(error) if isinstance(error, COMPOSITION_ERRORS) else str(error))
    except KeyboardInterrupt:
        if shows_traceback:
            raise
        # The status that a shell gives a program which Ctrl-C ended.
        raise SystemExit(128 + signal.SIGINT) from None


def _make_application(
    config_name: str, schema: type[Schema], job: Callable[[Schema], object], shows_traceback: bool
) -> Callable[[DictConfig], None]:
    """Return the function that Hydra calls with each composed config."""

    def application(composed: DictConfig) -> None:
        # Also in the worker of a parallel launcher, which starts here.
        logging.captureWarnings(True)
        _redact_hydra_folder()
        config: Schema | None = None
        try:
            config = resolve_config(composed, schema)
            remember_secrets(config_dict(config))
            show_bars(not isinstance(config, TrainConfig) or config.trainer.progress_bar)
            job(config)
        except BrokenPipeError:
            raise
        except (KeyboardInterrupt, SystemExit) as end:
            # What ends by a signal, not what ends by itself: in a sweep the sweep says how it goes on.
            if isinstance(end, KeyboardInterrupt) or end.code == 128 + signal.SIGTERM:
                log_to_file("interrupted", with_traceback=False)
                if not is_sweep_job():
                    _say_how_to_go_on(config)
            raise
        except (ValueError, OSError) as error:
            log_to_file(f"ended by an error: {error}", with_traceback=True)
            if shows_traceback or is_sweep_job():
                raise
            # A run that never began leaves no folder behind.
            _remove_hydra_folder()
            fail(str(error))
        except Exception as error:
            log_to_file(f"ended by an error: {type(error).__name__}: {error}", with_traceback=True)
            raise

    # Hydra names the job, and with it the log file, after the function's module.
    application.__module__ = f"causal_lm_router.commands.{config_name}"
    return application


def _say_how_to_go_on(config: Settings | None) -> None:
    """Print the command that goes on with a run that was interrupted, where it has begun and is not finished."""
    if not isinstance(config, TrainConfig):
        return
    folder = RunFolder(Path(config.run_dir))
    if not folder.config.is_file() or folder.report.is_file():
        return
    path = os.path.relpath(folder.path)
    word = f"run_dir={path}" if re.fullmatch(r"[\w./-]+", path) else quote_text(f"run_dir={path}")
    # What a run folder may not allow by itself has to be given again.
    again = to_give_again(config_dict(config), "resume")
    print(f"interrupted; to go on: causal-lm-router resume {shlex.join([word, *again])}", file=sys.stderr)


def is_sweep_job() -> bool:
    """True when the job that is running is one of a sweep."""
    return HydraConfig.get().mode is RunMode.MULTIRUN


def go_to_working_folder() -> None:
    """Change to the folder in which the command was typed, where it is there: workers of a cluster start elsewhere."""
    folder = HydraConfig.get().runtime.cwd
    if os.path.isdir(folder):
        os.chdir(folder)


def job_folder() -> str:
    """Absolute path of the folder that Hydra made for the job that is running."""
    return str(HydraConfig.get().runtime.output_dir)


def job_overrides() -> list[str]:
    """The overrides that made the job that is running."""
    return list(HydraConfig.get().overrides.task)


def _redact_hydra_folder() -> None:
    """Take secrets out of what Hydra has just written about the job: its config and its overrides."""
    settings = HydraConfig.get()
    if settings.output_subdir is None:
        return
    for path in (Path(settings.runtime.output_dir) / settings.output_subdir).glob("*.yaml"):
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
        if (clean := redact_composed(plain)) != plain:
            write_text(path, yaml.safe_dump(clean, sort_keys=False, allow_unicode=True))


def _remove_hydra_folder() -> None:
    """Remove the folder that Hydra made for the job, and the parents it made, where they hold only what is Hydra's."""
    settings = HydraConfig.get()
    # Before the job there are Hydra's folder (the composed config), the log file and the lock; the rest is the job's.
    folder = Path(settings.runtime.output_dir)
    hydras = {settings.output_subdir, f"{settings.job.name}.log", LOCK}
    if settings.output_subdir is None or {inside.name for inside in folder.iterdir()} - hydras:
        return
    shutil.rmtree(folder)
    # Parents such as outputs/<name>, but never the working folder or one above it.
    while (folder := folder.parent).is_relative_to(Path.cwd()) and folder != Path.cwd() and not any(folder.iterdir()):
        folder.rmdir()
