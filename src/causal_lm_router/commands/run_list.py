"""What `status` shows of a run: when, on which data, how far it came, and its main numbers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from causal_lm_router.evaluation.stored import read_report
from causal_lm_router.files.locks import is_held
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.sweeps.report.runs import read_config


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """One run folder; numbers are None until the run is done."""

    folder: Path
    name: str
    date: str
    """When its report was written, else when it began: `2026-01-31 12:00`, in UTC."""
    state: str
    """`done`, `running`, `unfinished` (which `resume` continues) or `unreadable`."""
    data: str = ""
    """Path of the data, or their source where they have no path."""
    mean_score: float | None = None
    routing_accuracy: float | None = None
    parse_failure_rate: float | None = None
    detail: str = ""
    """Why it cannot be read."""

    def to_plain(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return {**asdict(self), "folder": str(self.folder)}


def list_runs(folders: Sequence[Path]) -> list[ListedRun]:
    """Return what is known of the runs in the folders, the latest first."""
    return sorted(map(_list_run, folders), key=lambda run: run.date, reverse=True)


def _list_run(path: Path) -> ListedRun:
    folder = RunFolder(path)
    is_done = folder.report.is_file()
    written = (folder.report if is_done else folder.config).stat().st_mtime
    date = datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d %H:%M")
    try:
        config = read_config(folder.config)
        report = read_report(path) if is_done else None
    except ValueError as error:
        # One broken run must not hide all others.
        return ListedRun(folder=path, name="", date=date, state="unreadable", detail=" ".join(str(error).split()))
    return ListedRun(
        folder=path,
        name=str(config.get("name", "")),
        date=date,
        state="done" if is_done else "running" if is_held(path) else "unfinished",
        data=str(config.get("data.path") or config.get("data.source") or ""),
        mean_score=report.mean_score.value if report else None,
        routing_accuracy=report.routing_accuracy.value if report else None,
        parse_failure_rate=report.parse_failure_rate.value if report else None,
    )
