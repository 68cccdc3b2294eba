"""Tracking of one job: the loggers a Trainer takes, and what is recorded besides metrics."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from causal_lm_router.config import TrackingConfig, TrainConfig, WandbConfig
from causal_lm_router.runs.sweep_folder import sweep_of
from causal_lm_router.runs.tracking.wandb_run import WandbRun
from causal_lm_router.runs.tracking.wandb_session import open_wandb_run

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

    from causal_lm_router.runs.run_folder import RunFolder

NO_ROUTE = "(no route)"
"""The last column of the confusion matrix: queries whose generation names no candidate."""


class Tracking:
    """Where one job records: metrics.csv always, TensorBoard and W&B as configured.

    `loggers` are for the Trainer; metrics also pass through `log_report`. Everything else goes to W&B alone, and
    nowhere when it is disabled, since the run folder holds it already.
    """

    def __init__(
        self, loggers: "Sequence[Logger]", wandb_run: WandbRun | None, run_dir: Path, log_adapter: bool
    ) -> None:
        self.loggers = list(loggers)
        self._wandb_run = wandb_run
        self._run_dir = run_dir
        self._log_adapter = log_adapter

    def log_report(self, metrics: Mapping[str, float], split: str, step: int) -> None:
        """Record a report's metrics under `<split>/<name>` at an optimizer step, with every logger."""
        named = {f"{split}/{name}": float(value) for name, value in metrics.items()}
        for logger in self.loggers:
            # A copy for each: Lightning's loggers add to what they get.
            logger.log_metrics(dict(named), step)
            logger.save()

    def log_outcomes(self, rows: Sequence[Mapping[str, Any]], split: str, step: int) -> None:
        """Record one row per query (generation, route or failure, score, ...) as the table `<split>/outcomes`."""
        if self._wandb_run is not None:
            self._wandb_run.log_table(f"{split}/outcomes", rows, step)

    def log_confusion(
        self,
        candidates: Sequence[str],
        counts: Sequence[Sequence[int]],
        split: str,
        step: int,
        image_path: Path | None = None,
    ) -> None:
        """Record queries by label (rows) and route (columns, parse failures last) as the chart `<split>/confusion`.

        The drawing at `image_path` is recorded beside it, as `<split>/confusion_picture`.

        Raises:
            ValueError: `counts` has not one row per candidate, or not one column more than candidates.
        """
        columns = [*candidates, NO_ROUTE]
        if [len(row) for row in counts] != [len(columns)] * len(candidates):
            widths = [len(row) for row in counts]
            # Checked without W&B too, so that a mistake shows on every machine.
            raise ValueError(
                f"confusion must have {len(candidates)} rows of {len(columns)} counts, got rows of {widths}"
            )
        if self._wandb_run is None:
            return
        # W&B draws its chart from a table with a row per cell.
        cells = [
            (label, route, int(count))
            for label, row in zip(candidates, counts, strict=True)
            for route, count in zip(columns, row, strict=True)
        ]
        self._wandb_run.log_confusion(f"{split}/confusion", cells, step)
        if image_path is not None:
            self._wandb_run.log_image(f"{split}/confusion_picture", image_path, step)

    def log_pictures(self, paths: Sequence[Path], split: str, step: int) -> None:
        """Record drawings at an optimizer step, each as `<split>/<name of the file without its ending>`."""
        if self._wandb_run is not None:
            for path in paths:
                self._wandb_run.log_image(f"{split}/{path.stem}", path, step)

    def log_adapter(self, adapter_dir: Path) -> None:
        """Record the adapter folder as the artifact `adapter-<run id>`, where `tracking.wandb.log_adapter` is set.

        W&B reads the files where they lie, offline at `wandb sync`, so they must stay as they are.
        """
        if self._wandb_run is not None and self._log_adapter:
            self._wandb_run.log_folder(f"adapter-{self._wandb_run.run.id}", "model", adapter_dir)

    def log_files(self, paths: Sequence[Path]) -> None:
        """Record files of the run folder (report.json, drawings) under their names in it."""
        if self._wandb_run is not None:
            for path in paths:
                self._wandb_run.log_file(path.absolute(), self._run_dir.absolute())


def open_run_tracking(
    config: TrainConfig, settings: Mapping[str, Any], folder: "RunFolder"
) -> AbstractContextManager[Tracking]:
    """Return the tracking of a run or of a job of a sweep, which goes on where an interrupted one was.

    `settings` are the config as plain values, for W&B. It raises what `open_tracking` raises.
    """
    # Here and not above: the tracking of a sweep needs no torch.
    from causal_lm_router.training.checkpoint import checkpoint_step, last_checkpoint

    names = _wandb_names(config, folder)
    # With weights in place training is over: all of its metrics hold, also those after the last checkpoint.
    resume_step = None if folder.weights.is_dir() else checkpoint_step(last_checkpoint(folder.checkpoints))
    return open_tracking(
        config.tracking,
        names.run,
        folder.path,
        settings,
        names.run_id,
        group=names.group,
        resume_step=resume_step,
        says_offline=sweep_of(folder.path) is None,  # a sweep says it once, for all its jobs
    )


def open_evaluation_tracking(
    config: TrainConfig, settings: Mapping[str, Any], folder: Path
) -> AbstractContextManager[Tracking]:
    """Return the tracking of an evaluation of a run, a W&B run of its own; it raises what `open_tracking` raises."""
    run_id = _digest(str(folder.resolve()))
    # One step makes no curve for TensorBoard.
    tracking = replace(config.tracking, tensorboard=False)
    # What an evaluation that was interrupted, or an earlier one in the same folder, has recorded goes.
    return open_tracking(tracking, config.name, folder, settings, run_id, job_type="evaluate", resume_step=-1)


class _WandbNames(NamedTuple):
    run: str
    run_id: str
    group: str | None


def _wandb_names(config: TrainConfig, folder: "RunFolder") -> _WandbNames:
    """Return what W&B knows the run by: the same again when it resumes, and no other run's.

    A job of a sweep is known by the sweep's unique id and its own, a run of its own by the place of its folder.
    """
    sweep = sweep_of(folder.path)
    if sweep is None:
        return _WandbNames(config.name, _digest(str(folder.path.resolve())), None)
    # By the sweep's id, not its name: two sweeps may have the same name.
    metadata, job = sweep.read_metadata(), folder.path.name
    return _WandbNames(f"{config.name}-{job}", _digest(f"{metadata.uid}/{job}"), metadata.name)


def _digest(text: str) -> str:
    # 12 digits are enough to tell all runs of a project apart, and short enough to read in a list.
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextmanager
def open_tracking(
    config: TrackingConfig,
    run_name: str,
    run_dir: Path,
    run_config: Mapping[str, Any],
    run_id: str,
    *,
    job_type: str = "train",
    group: str | None = None,
    resume_step: int | None = None,
    says_offline: bool = True,
) -> Iterator[Tracking]:
    """Yield the tracking of one job and close it at the end, the W&B run with exit code 1 when the block raises.

    `run_config` reaches W&B without its secrets. `run_id` names the W&B run: a job that resumes gives the same one.
    `group` is the W&B group where the config has none. A job that resumes also gives `resume_step`, the last step whose
    metrics hold; rows of later steps leave metrics.csv and TensorBoard. With several processes only the first one
    records. Without `says_offline` only the log file says that W&B records offline.

    Raises:
        ValueError: `tracking.wandb.mode=online` finds no key.
        ConnectionError: `tracking.wandb.mode=online` finds no server.
    """
    from pytorch_lightning.utilities import rank_zero_only

    # The other processes of a distributed run get loggers that write nothing, so that all take the same path.
    if getattr(rank_zero_only, "rank", 0) != 0:
        yield Tracking(_file_loggers(config, run_dir, None), None, run_dir, log_adapter=False)
        return
    wandb = config.wandb
    arguments = _wandb_arguments(wandb, group=group, name=run_name, id=run_id, job_type=job_type)
    with open_wandb_run(
        wandb.mode, wandb.init_timeout_s, arguments, run_dir, run_config, says_offline=says_offline
    ) as wandb_run:
        loggers = _file_loggers(config, run_dir, resume_step)
        if wandb_run is not None:
            from causal_lm_router.runs.tracking.wandb_logger import WandbRunLogger

            loggers.append(WandbRunLogger(wandb_run))
        try:
            yield Tracking(loggers, wandb_run, run_dir, wandb.log_adapter)
        finally:
            # Before W&B closes, whose logger is one of them.
            for logger in loggers:
                logger.save()


def _file_loggers(config: TrackingConfig, run_dir: Path, resume_step: int | None) -> "list[Logger]":
    from causal_lm_router.runs.tracking.metrics_csv import MetricsCsv

    # Always there: the learning curve and the report of a sweep are drawn from it.
    metrics_csv = MetricsCsv(run_dir)
    loggers: list[Logger] = [metrics_csv]
    # An interrupted job may have recorded steps after its last checkpoint; they will be done again.
    if resume_step is not None:
        metrics_csv.drop_after(resume_step)
    if config.tensorboard:
        from pytorch_lightning.loggers import TensorBoardLogger

        # TensorBoard drops this step and all later ones from what it shows; the file keeps them.
        purge_step = None if resume_step is None else resume_step + 1
        loggers.append(
            TensorBoardLogger(run_dir, name="tensorboard", version="", default_hp_metric=False, purge_step=purge_step)
        )
    return loggers


def log_sweep_report(
    config: WandbConfig, name: str, uid: str, sweep_dir: Path, rows: Sequence[Mapping[str, Any]], report_dir: Path
) -> None:
    """Record the rows as the table `configurations` and the folder as the artifact `report-<uid>`.

    A later report of the same sweep goes on in the same run. The sweep itself says where its offline runs are.

    Raises:
        ValueError: as `open_wandb_run`.
        ConnectionError: as `open_wandb_run`.
    """
    run_id = f"{uid}-report"
    arguments = _wandb_arguments(config, group=name, name=f"{name}-report", id=run_id, job_type="report")
    with open_wandb_run(
        config.mode, config.init_timeout_s, arguments, sweep_dir, {"sweep": name}, says_offline=False
    ) as wandb_run:
        if wandb_run is not None:
            wandb_run.log_table("configurations", rows, 0)
            # Copied, since the next report is written to the same folder.
            wandb_run.log_folder(f"report-{uid}", "report", report_dir, copied=True)


def _wandb_arguments(config: WandbConfig, *, group: str | None, **names: str) -> dict[str, Any]:
    """Return what `wandb.init` is told: whose run it is and how it is found; a configured group wins."""
    place = {"project": config.project, "entity": config.entity, "tags": config.tags}
    return {**place, "group": config.group or group, **names}
