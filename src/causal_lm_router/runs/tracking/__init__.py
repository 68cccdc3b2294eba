"""Records of a job: metrics.csv, TensorBoard and W&B, with secrets left out of every configuration.

Start at `open_run_tracking`. Lightning and W&B are imported only when a job's tracking opens.
"""

from causal_lm_router.config.redact import redact
from causal_lm_router.runs.tracking.job import (
    Tracking,
    log_sweep_report,
    open_evaluation_tracking,
    open_run_tracking,
    open_tracking,
)
from causal_lm_router.runs.tracking.metrics_file import MetricRow, read_metrics

__all__ = [
    "MetricRow",
    "Tracking",
    "log_sweep_report",
    "open_evaluation_tracking",
    "open_run_tracking",
    "open_tracking",
    "read_metrics",
    "redact",
]
