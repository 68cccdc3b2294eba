"""Reading run folders and sweep folders: config, state, evaluations and learning curves of each run."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from causal_lm_router.config.plain import flatten
from causal_lm_router.config.yaml_file import read_yaml
from causal_lm_router.evaluation.stored import RunEvaluation, read_evaluation, read_facts
from causal_lm_router.runs.job_log import JobState, JobStatus, read_statuses
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.sweep_folder import SweepFolder
from causal_lm_router.runs.tracking.metrics_file import read_metrics

FOLD = "data.test_fold"
"""Setting that says which part of the data is test: the folds of a cross-validation differ in it alone."""
CURVES = ("train/loss", "validation/routing_accuracy", "validation/mean_score")


@dataclass(frozen=True)
class Run:
    """One run folder, or a job of a sweep that has none yet."""

    folder: Path
    state: str
    """A job's state, or `unfinished` outside of sweeps; `unreadable` and `repeated` runs are listed, no more."""
    detail: str = ""
    """Why it failed or is left out."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key -> value of the resolved config; empty where the run has not written it."""
    test: RunEvaluation | None = None
    """The final evaluation, on the test split unless configured otherwise; None unless the run is done."""
    validation: RunEvaluation | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What report.json says beside the report: sizes of the splits, what made it; empty unless the run is done."""
    code: str | None = None
    """Fingerprint of the code, of a job of a sweep."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Fingerprint of the data config -> fingerprint of the data read, of a job of a sweep."""
    curves: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """Name (see CURVES) -> optimizer step -> value."""

    @property
    def seed(self) -> Any:
        """The run's seed; None where it has no config yet."""
        return self.config.get("seed")

    @property
    def replicate(self) -> tuple[Any, int]:
        """The run's seed and its fold of a cross-validation: what the runs of one configuration differ in."""
        return self.seed, self.config.get(FOLD, 0)


def is_sweep_folder(folder: Path) -> bool:
    """Whether the folder holds the metadata or the job log of a sweep."""
    sweep = SweepFolder(folder)
    return sweep.metadata.is_file() or sweep.jobs.is_file()


def find_folders(folder: Path) -> Iterator[Path]:
    """Yield every sweep folder and run folder at or below `folder`, by name; what lies inside of one is not searched.

    Raises:
        ValueError: there is no such folder; the message has the most similar name beside it.
    """
    if not folder.is_dir():
        beside = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
        similar = get_close_matches(folder.name, beside, n=1)
        hint = f"; did you mean {folder.parent / similar[0]}?" if similar else ""
        raise ValueError(f"{folder}: must be a folder of runs; there is no such folder{hint}")
    if is_sweep_folder(folder) or RunFolder(folder).config.is_file():
        yield folder
        return
    for inside in sorted(folder.iterdir()):
        # Hidden folders are Hydra's and ours; a link could lead anywhere, also back to here.
        if inside.is_dir() and not inside.is_symlink() and not inside.name.startswith("."):
            yield from find_folders(inside)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Return the runs in and below the given folders, each once, in the order of the job logs and else by name.

    Raises:
        ValueError: a folder is none, or holds no run.
    """
    # A job has a run folder too, and may be given a second time; what comes first counts, with its status.
    found: dict[Path, tuple[Path, JobStatus | None]] = {}
    for folder in folders:
        for path, status in _run_folders(folder):
            found.setdefault(path.resolve(), (path, status))
    return [_read_run(path, status) for path, status in found.values()]


def _run_folders(folder: Path) -> Iterator[tuple[Path, JobStatus | None]]:
    found = list(find_folders(folder))
    if not found:
        # A folder inside a run or a sweep, such as its report, is the likeliest mistake.
        inside = [
            path for path in folder.resolve().parents if is_sweep_folder(path) or RunFolder(path).config.is_file()
        ]
        hint = f"; it lies in {os.path.relpath(inside[0])}" if inside else ""
        raise ValueError(f"{folder}: must hold a run, a folder with config.yaml, got none{hint}")
    for path in found:
        if not is_sweep_folder(path):
            yield path, None
            continue
        sweep = SweepFolder(path)
        yield from ((sweep.run_dir(job), status) for job, status in read_statuses(sweep).items())
        # Runs that no job log knows, after the jobs.
        yield from ((config.parent, None) for config in sorted(path.glob("*/config.yaml")))


def _read_run(folder: Path, status: JobStatus | None) -> Run:
    # The report is written last: with it a run is done.
    is_done = RunFolder(folder).report.is_file()
    state = status.state.value if status else "done" if is_done else "unfinished"
    try:
        config = read_config(RunFolder(folder).config)
        if not is_done:
            return Run(folder, state, _detail(status), config)
        if not config:
            raise ValueError(f"{folder}: must hold config.yaml beside report.json")
        has_validation = (RunFolder(folder).validation / "report.json").is_file()
        return Run(
            folder,
            JobState.done.value,
            config=config,
            code=status.code if status else None,
            data=(status.data if status else None) or {},
            facts=read_facts(folder),
            test=read_evaluation(folder),
            validation=read_evaluation(RunFolder(folder).validation) if has_validation else None,
            curves=_read_curves(RunFolder(folder).metrics),
        )
    except ValueError as error:
        # One broken run must not cost the report of all others.
        return Run(folder, "unreadable", str(error))


def _detail(status: JobStatus | None) -> str:
    if status is None or status.state not in (JobState.failed, JobState.pruned):
        return ""
    return ": ".join(text for text in (status.reason and status.reason.value, status.message) if text)


def read_config(path: Path) -> dict[str, Any]:
    """Return the settings of a run by their dotted keys; none where it has not written them.

    Raises:
        ValueError: the file is no config of a run.
    """
    if not path.is_file():
        return {}
    plain = read_yaml(path)
    if not isinstance(plain, dict) or "seed" not in plain:
        raise ValueError(f"{path}: must be the config of a run; it has no seed")
    return flatten(plain)


def _read_curves(path: Path) -> dict[str, dict[int, float]]:
    curves: dict[str, dict[int, float]] = {}
    # Of several values at one step (a resumed run) the last counts.
    for row in read_metrics(path) if path.is_file() else []:
        if row.name in CURVES:
            curves.setdefault(row.name, {})[row.step] = row.value
    return curves
