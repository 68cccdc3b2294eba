"""Tracking of one job: the loggers a Trainer takes, and what is recorded besides metrics."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal_lm_router.config import TrackingConfig
from causal_lm_router.runs.tracking.wandb_run import WandbRun
from causal_lm_router.runs.tracking.wandb_session import open_wandb_run

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

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


@contextmanager
def open_tracking(
    config: TrackingConfig,
    run_name: str,
    run_dir: Path,
    run_config: Mapping[str, Any],
    run_id: str,
    *,
    job_type: str = "train",
    resume_step: int | None = None,
    says_offline: bool = True,
) -> Iterator[Tracking]:
    """Yield the tracking of one job and close it at the end, the W&B run with exit code 1 when the block raises.

    `run_config` reaches W&B without its secrets. `run_id` names the W&B run: a job that resumes gives the same one. It
    also gives `resume_step`, the last step whose metrics hold; rows of later steps leave metrics.csv and TensorBoard.
    With several processes only the first one records. Without `says_offline` only the log file says that W&B records
    offline.

    Raises:
        ValueError: `tracking.wandb.mode=online` finds no key.
        ConnectionError: `tracking.wandb.mode=online` finds no server.
    """
    from pytorch_lightning.utilities import rank_zero_only

    # The other processes of a distributed run get loggers that write nothing, so that all take the same path.
    if getattr(rank_zero_only, "rank", 0) != 0:
        yield Tracking(_file_loggers(config, run_dir, None), None, run_dir, log_adapter=False)
        return
    with open_wandb_run(
        config.wandb, run_name, run_dir, run_config, run_id, job_type, says_offline=says_offline
    ) as wandb_run:
        loggers = _file_loggers(config, run_dir, resume_step)
        if wandb_run is not None:
            from causal_lm_router.runs.tracking.wandb_logger import WandbRunLogger

            loggers.append(WandbRunLogger(wandb_run))
        try:
            yield Tracking(loggers, wandb_run, run_dir, config.wandb.log_adapter)
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
