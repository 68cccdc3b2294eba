"""A Lightning logger that appends every metric to the run folder's metrics.csv."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from causal_lm_router.runs.tracking.metrics_file import FILE_NAME, MetricRow, append_rows, drop_rows_after


class MetricsCsv(Logger):
    """Writes `metrics.csv` in `run_dir`; of several processes only the first one writes.

    The file is opened anew for each write, so the logger can be sent to another process and the file may be replaced
    between two writes.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self._run_dir = run_dir
        self.path = run_dir / FILE_NAME

    @property
    def name(self) -> str:
        """Empty: the file lies in the run folder itself."""
        return ""

    @property
    def version(self) -> str:
        """Empty: the file lies in the run folder itself."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._run_dir)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row for each metric.

        Raises:
            ValueError: there is no step, or a name is empty or holds a line break.
        """
        if step is None:
            raise ValueError(f"metrics.csv: {sorted(metrics)} must come with a step, got None")
        # Lightning adds `epoch` to the metrics of a training step; here it is a column.
        epoch = int(metrics["epoch"]) if "epoch" in metrics else None
        rows = [
            MetricRow(step=int(step), epoch=epoch, name=name, value=float(value))
            for name, value in metrics.items()
            if name != "epoch"
        ]
        self._run_dir.mkdir(parents=True, exist_ok=True)
        append_rows(self.path, rows)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run folder holds the whole configuration."""

    @rank_zero_only
    def drop_after(self, step: int) -> None:
        """Remove the rows of steps above `step` and a torn last line, whole or not at all, for a run that resumes."""
        drop_rows_after(self.path, step)
