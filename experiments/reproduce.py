"""Run the small-scale version of every reproduction, and rebuild the tables and figures of README.md from run folders.

    python experiments/reproduce.py outputs/reproduce --data path/to/data               # what `make reproduce` runs
    python experiments/reproduce.py outputs/reproduce --data path/to/data --only lora   # one section
    python experiments/reproduce.py outputs/reproduce --data path/to/data --list        # what there is to do
    python experiments/reproduce.py outputs/reproduce --tables                          # tables and figures alone

`reproduce.yaml` says which runs there are. Each is a process of its own on one thread, in its own folder; a finished
one is skipped and an interrupted one resumes, so the same command goes on after a stop. A run that fails is named with
its log, the others go on, and the exit status is 1; so it is where a table lacks runs. `--data` is a folder with the
folders `llmrouter`, `mmlu_pro` and `routellm`.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from causal_lm_router.runs.run_folder import RunFolder

PLAN = Path(__file__).with_suffix(".yaml")
DATA = "{data}"
"""Stands in `reproduce.yaml` for the folder of the data."""
COMMANDS = ("train", "baseline", "evaluate", "read")
"""What makes a row's runs; `read` makes none, and reads what those of another row hold."""
POLL_SECONDS = 0.2


def _file_name(text: str) -> str:
    return "_".join("".join(char if char.isalnum() or char in ".-" else " " for char in text).split())


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a section's table: one router or baseline, and the runs behind it."""

    name: str
    command: str = "train"
    settings: Sequence[str] = ()
    runs: Sequence[Sequence[str]] | None = None
    """The settings that its runs differ in, a list for each run; None takes the section's."""
    weights_of: str | None = None
    """Under `evaluate`: the row whose runs are evaluated."""
    decoding: str | None = None
    """Under `read`: another decoding that the runs of `weights_of` were evaluated by."""
    minutes: float = 0.0
    """Of one run, on one core."""
    published: str = ""
    """The figure that the paper has."""
    against: Sequence[str] | None = None
    """Rows that it is compared with, paired by query; None takes the section's."""

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return _file_name(self.name)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of README.md: what its runs share, and the rows of its table."""

    name: str
    """The end of the link to its heading."""
    settings: Sequence[str]
    runs: Sequence[Sequence[str]]
    rows: Sequence[Row]
    table: str = "routers"
    """Which columns it has, see `reproduction_tables.TABLES`."""
    against: Sequence[str] = ()
    """Rows that every other row is compared with."""
    figure: Sequence[str] = ("best single",)
    """The gains that are drawn, a panel each: over best single, or over a row that others are compared with."""

    def find(self, name: str | None) -> Row:
        """Return the row of that name."""
        return next(row for row in self.rows if row.name == name)

    def runs_of(self, row: Row) -> Sequence[Sequence[str]]:
        """Return the settings in which the runs of a row differ."""
        if row.weights_of is not None:
            return self.runs_of(self.find(row.weights_of))
        return self.runs if row.runs is None else row.runs

    def folder(self, root: Path, row: Row, run: Sequence[str]) -> Path:
        """Return the folder of a run: `seed_0`, `data.test_fold_1`, or `run` where a row has one run alone."""
        if row.decoding is not None:
            return self.folder(root, self.find(row.weights_of), run) / "decodings" / row.decoding
        return root / self.name / row.folder / (_file_name("_".join(run)) or "run")


@dataclass(frozen=True)
class Job:
    """One run to make: its folder, the words of its command behind the program, and what they stand for."""

    folder: Path
    words: tuple[str, ...]
    described: str
    """The command without the places of this machine."""
    minutes: float
    is_evaluation: bool

    @property
    def log(self) -> Path:
        """What the run prints, below the line of its command."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def is_done(self) -> bool:
        """Whether the run is finished."""
        return RunFolder(self.folder).report.is_file()

    def is_of_other_settings(self) -> bool:
        """Return whether the folder was begun by another command than today's."""
        with self.log.open() if self.log.is_file() else open(os.devnull) as log:
            first = log.readline()
        return bool(first) and first.rstrip("\n") != self.described and self.folder.is_dir()


def read_plan(path: Path = PLAN) -> list[Section]:
    """Return the sections of a plan; raise ValueError, which names the place, for what it must not hold."""
    sections = []
    # With aliases, which keep it short: it is no stranger's file.
    for name, plain in yaml.safe_load(path.read_text()).items():
        where = f"{path}: {name}"
        rows = [_build(Row, row, f"{where}: {row.get('name')}") for row in plain["rows"]]
        section = _build(Section, {"runs": [[]], **plain, "name": name, "rows": rows}, where)
        names = [row.name for row in rows]
        for row in rows:
            if row.command not in COMMANDS:
                raise ValueError(f"{where}: {row.name}: command must be {', '.join(COMMANDS)}, got {row.command!r}")
            if (row.command in ("evaluate", "read")) != (row.weights_of in names):
                raise ValueError(f"{where}: {row.name}: weights_of must be a row under evaluate and read alone")
            if (row.command == "read") != (row.decoding is not None):
                raise ValueError(f"{where}: {row.name}: decoding must be given under read alone")
        compared = [*section.against, *(name for row in rows for name in row.against or ())]
        if unknown := [name for name in compared if name not in names]:
            raise ValueError(f"{where}: against must be rows, got {unknown}")
        if len({row.folder for row in rows}) < len(rows):
            raise ValueError(f"{where}: rows must differ in the letters of their names, got {names}")
        sections.append(section)
    return sections


def _build(kind: type[Any], plain: Mapping[str, Any], where: str) -> Any:
    known = {field.name for field in fields(kind)}
    if unknown := sorted(plain.keys() - known):
        raise ValueError(f"{where}: keys must be of {', '.join(sorted(known))}, got {', '.join(unknown)}")
    try:
        return kind(**{**plain, "settings": list(_flatten(plain.get("settings", [])))})
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None


def _flatten(settings: Sequence[Any]) -> Iterator[str]:
    for setting in settings:
        yield from [setting] if isinstance(setting, str) else _flatten(setting)


def make_jobs(sections: Sequence[Section], root: Path, data: Path) -> Iterator[Job]:
    """Yield the runs of the sections in their order."""
    for section in sections:
        for row in section.rows:
            for run in section.runs_of(row) if row.command != "read" else ():
                yield _make_job(section, row, run, root, data)


def _make_job(section: Section, row: Row, run: Sequence[str], root: Path, data: Path) -> Job:
    folder = section.folder(root, row, run)
    if row.command == "evaluate":
        source = section.folder(root, section.find(row.weights_of), run)
        place = [f"run_dir={source}", f"output_dir={folder}"]
        settings = list(row.settings)
    else:
        place, settings = [f"run_dir={folder}"], [*section.settings, *row.settings, *run]
    words = (row.command, *(setting.replace(DATA, str(data)) for setting in settings), *place)
    return Job(folder, words, shlex.join((row.command, *settings)), row.minutes, row.command == "evaluate")


def run_jobs(jobs: Sequence[Job], num_processes: int) -> list[Job]:
    """Run what is not done, so many at a time; return the jobs that failed. A stop ends the processes too."""
    failed = []
    # An evaluation needs the weights of another run.
    for wave in (False, True):
        waiting = [job for job in jobs if job.is_evaluation is wave and not job.is_done]
        running: dict[Job, tuple[subprocess.Popen[bytes], float]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < num_processes:
                    job = waiting.pop(0)
                    running[job] = (_start(job), time.monotonic())
                for job, (process, start) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[job]
                    failed += [] if job.is_done else [job]
                    state = "done" if job.is_done else f"FAILED, see {job.log}"
                    minutes = (time.monotonic() - start) / 60
                    print(f"{job.folder}: {state}, {minutes:.1f} minutes, {len(waiting)} to go", flush=True)
                time.sleep(POLL_SECONDS)
        finally:
            for process, _ in running.values():
                process.terminate()
            for process, _ in running.values():
                process.wait()
    return failed


def _start(job: Job) -> subprocess.Popen[bytes]:
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    log = job.log.open("w")
    log.write(f"{job.described}\n")
    log.flush()
    # Two runs of one thread each do more than one after the other on two.
    settings = [] if job.is_evaluation else ["tracking=local"]
    command = [sys.executable, "-m", "causal_lm_router.commands.cli", *job.words, *settings]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with log:
        return subprocess.Popen(command, env={**os.environ, **threads}, stdout=log, stderr=subprocess.STDOUT)


def main() -> int:
    """Run what is asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the run folders are")
    parser.add_argument("--data", type=Path, help="folder of the routing data")
    parser.add_argument("--plan", type=Path, default=PLAN, help="beside it are README.md and results.json")
    parser.add_argument("--only", nargs="+", metavar="SECTION")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="print runs, minutes and state, and run nothing")
    parser.add_argument("--tables", action="store_true", help="only rebuild tables and figures")
    arguments = parser.parse_args()
    sections = read_plan(arguments.plan)
    names = [section.name for section in sections]
    if unknown := [name for name in arguments.only or [] if name not in names]:
        parser.error(f"--only must be of {', '.join(names)}, got {', '.join(unknown)}")
    if arguments.data is None and not arguments.tables:
        parser.error("--data must be the folder of the routing data")
    chosen = [section for section in sections if not arguments.only or section.name in arguments.only]
    if arguments.tables:
        return write_tables(chosen, arguments.folder, arguments.plan.parent)
    root, data = arguments.folder, arguments.data.resolve()
    jobs = list(make_jobs(chosen, root, data))
    if others := [job for job in jobs if job.is_of_other_settings()]:
        listed = "\n".join(f"  {job.folder}" for job in others)
        raise SystemExit(f"run folders must be of today's settings; remove these to run them anew:\n{listed}")
    if arguments.list:
        return list_jobs(jobs)
    # A stop by the system ends the processes as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    failed = run_jobs(jobs, arguments.jobs)
    for job in failed:
        print(f"{job.folder}: failed, see {job.log}", file=sys.stderr)
    return max(write_tables(chosen, root, arguments.plan.parent), 1 if failed else 0)


def list_jobs(jobs: Sequence[Job]) -> int:
    """Print the state of every run, and the minutes that are left."""
    for job in jobs:
        print(f"{'done' if job.is_done else 'to do'}  {job.minutes:5.1f} min  {job.folder}")
    left = sum(job.minutes for job in jobs if not job.is_done)
    print(f"{left:.0f} minutes of one core to go, of {sum(job.minutes for job in jobs):.0f}")
    return 0


def write_tables(sections: Sequence[Section], root: Path, place: Path) -> int:
    """Rebuild results.json, the tables in README.md and the figures of a folder; return 1 where runs are missing."""
    # Imported here: the libraries of figures and statistics take seconds.
    from reproduction_tables import write_sections

    missing = write_sections(sections, root, place)
    for folder in missing:
        print(f"missing: {folder}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
