"""A job's W&B run from opening to closing: online or offline, its files in the run folder, its secrets left out."""

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal_lm_router.config import WandbMode
from causal_lm_router.config.redact import redact, redact_arguments
from causal_lm_router.runs.tracking.wandb_mode import KEY, Recording, choose_recording, client_settings
from causal_lm_router.runs.tracking.wandb_run import FINISH_TIMEOUT_S, STEP, WandbRun, helper_errors

if TYPE_CHECKING:
    import wandb

_logger = logging.getLogger(__name__)


@contextmanager
def open_wandb_run(
    mode: WandbMode,
    timeout_s: int,
    arguments: Mapping[str, Any],
    run_dir: Path,
    run_config: Mapping[str, Any],
    *,
    says_offline: bool = True,
) -> Iterator[WandbRun | None]:
    """Yield the job's own W&B run, None where W&B is disabled, and close it: exit code 0, or 1 when the block raises.

    `arguments` are those of `wandb.init`: `id`, `name`, `project` and so on. `run_config` is recorded without its
    secrets. Files go to `run_dir/wandb`. An online run goes on under the same id. An offline one starts a new folder
    each time; `wandb sync` takes all folders of one id as one run. With `auto` a run whose server goes away while it
    opens is an offline one. Opening takes at most `timeout_s` seconds. Without `says_offline` only the log file says
    why a run is offline.

    Raises:
        ValueError: as `choose_recording`.
        ConnectionError: as `choose_recording`, or the server did not open the run under `online`.
    """
    start = time.monotonic()
    recording = choose_recording(mode, timeout_s)
    if recording.mode == "disabled":
        yield None
        return
    folder = run_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {**arguments, "resume": "allow", "dir": str(folder), "config": redact(run_config)}
    with _stage_in(folder / "wandb" / "data"):
        # What looking for the server has taken counts too.
        left_s = max(1.0, timeout_s - (time.monotonic() - start))
        wandb_run = _open(mode, recording, arguments, left_s, says_offline)
        # 1 unless the block comes to its end, so that W&B shows a failed job as failed.
        exit_code = 1
        try:
            yield wandb_run
            exit_code = 0
        finally:
            wandb_run.close(exit_code)
            # A dead helper process would fail the next run that this process opens.
            if wandb_run.is_lost:
                _end_helper()


def _open(
    mode: WandbMode, recording: Recording, arguments: dict[str, Any], timeout_s: float, says_offline: bool
) -> WandbRun:
    """Open the run as chosen; under `auto` offline where the server refuses to open it."""
    import wandb

    if recording.mode == "online":
        try:
            run = _init(arguments | {"mode": "online"}, timeout_s)
        except wandb.errors.Error as error:
            # Until W&B's helper process ends it keeps the id for the run that failed to open.
            _end_helper()
            if mode is WandbMode.online:
                raise ConnectionError(
                    f"{KEY} must be auto, offline or disabled here, got 'online': {_first_line(error)}"
                ) from error
            recording = Recording("offline", f"the W&B server did not open the run ({_first_line(error)})")
        else:
            _logger.info("W&B records online: %s", run.url)
            return WandbRun(run, is_online=True)
    run = _init(arguments | {"mode": "offline"}, timeout_s)
    wandb_run = WandbRun(run, is_online=False)
    # The terminal shows INFO and above. A choice that the user did not make is a warning.
    level = logging.INFO if mode is WandbMode.offline else logging.WARNING
    level = level if says_offline else logging.DEBUG
    folders = wandb_run.folder.parent / "offline-run-*"
    _logger.log(level, "W&B records offline: %s. To upload: wandb sync %s", recording.reason, folders)
    return wandb_run


def _init(arguments: dict[str, Any], timeout_s: float) -> "wandb.Run":
    """Open a run of its own beside any other run of this process, with the optimizer step as the x axis."""
    try:
        run = _init_once(arguments, timeout_s)
    except helper_errors():
        # W&B's helper process has died since an earlier job of this process: start another one.
        _end_helper()
        run = _init_once(arguments, timeout_s)
    # Every other metric is drawn over the optimizer step instead of W&B's own counter of calls.
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    return run


def _init_once(arguments: dict[str, Any], timeout_s: float) -> "wandb.Run":
    import wandb

    client_settings()
    settings = wandb.Settings(
        silent=True,
        console="off",  # the run folder's log file holds what the terminal shows
        init_timeout=timeout_s,
        finish_timeout=FINISH_TIMEOUT_S,
        finish_timeout_raises=True,
    )
    # A new run each time: jobs of a sweep run in one process, and W&B would hand out the run that is open.
    with _redact_command_line():
        return wandb.init(**arguments, reinit="create_new", settings=settings)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _end_helper() -> None:
    """End W&B's helper process, if it is still there; the next run starts another."""
    import wandb

    with suppress(*helper_errors()):
        wandb.teardown()


@contextmanager
def _stage_in(folder: Path) -> Iterator[None]:
    """Have W&B keep what it prepares for upload in `folder`, in the run folder, unless WANDB_DATA_DIR names another."""
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("WANDB_DATA_DIR", None)


@contextmanager
def _redact_command_line() -> Iterator[None]:
    """Take secrets out of the command line, which W&B records as it finds it when a run opens."""
    original = sys.argv
    sys.argv = [*original[:1], *redact_arguments(original[1:])]
    try:
        yield
    finally:
        sys.argv = original
