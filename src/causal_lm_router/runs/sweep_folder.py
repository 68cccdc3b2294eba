"""The sweep folder: the run folders of a sweep's jobs, their history, and the sweep's identity.

sweep.json       name, unique id, time of creation        <job id>/       run folder of a job, named by its config
jobs.jsonl       what happened to every job, by which a    report/         the sweep's report
                 sweep that was killed goes on (job_log)
multirun.yaml    the config that was swept                 study.journal   trials of a search
"""

import json
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from causal_lm_router.files.checksums import read_checked, write_checked


@dataclass(frozen=True)
class SweepMetadata:
    """A sweep's name, unique id and time of creation. The random `uid` tells two sweeps of one name apart."""

    name: str
    uid: str
    created: str


@dataclass(frozen=True)
class SweepFolder:
    """Paths inside a sweep folder."""

    path: Path

    @property
    def metadata(self) -> Path:
        """Name, unique id and time of creation."""
        return self.path / "sweep.json"

    @property
    def jobs(self) -> Path:
        """The history of all jobs, appended to."""
        return self.path / "jobs.jsonl"

    @property
    def study(self) -> Path:
        """The trials of a search."""
        return self.path / "study.journal"

    @property
    def report(self) -> Path:
        """Folder of the sweep's report."""
        return self.path / "report"

    def run_dir(self, job: str) -> Path:
        """Return the run folder of a job."""
        return self.path / job

    def is_sweep(self) -> bool:
        """True where a sweep has started in this folder."""
        return self.metadata.is_file()

    def make_metadata(self) -> SweepMetadata:
        """Return the sweep's metadata; make the folder and sweep.json where they are missing."""
        self.path.mkdir(parents=True, exist_ok=True)
        # Two commands may start the same sweep at once: only one of them draws the uid.
        with self._lock():
            if not self.metadata.is_file():
                made = datetime.now(UTC).isoformat(timespec="seconds")
                metadata = SweepMetadata(self.path.name, secrets.token_hex(6), made)
                write_checked(self.metadata, json.dumps(asdict(metadata)) + "\n")
        return self.read_metadata()

    def write_config(self, text: str) -> None:
        """Write the config that is swept, that of the latest command."""
        with self._lock():
            write_checked(self.path / "multirun.yaml", text)

    def read_metadata(self) -> SweepMetadata:
        """Return the sweep's metadata.

        Raises:
            ValueError: the folder holds no readable sweep.json, or it is damaged.
        """
        try:
            return SweepMetadata(**json.loads(read_checked(self.metadata)))
        except (FileNotFoundError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{self.path}: no sweep.json of a sweep there") from error

    def _lock(self) -> FileLock:
        """Of the files that commands on one sweep write, and their checksums."""
        return FileLock(self.path / ".sweep.lock")


def sweep_of(run_dir: Path) -> SweepFolder | None:
    """Return the sweep that a run folder belongs to as a job; None for a single run."""
    sweep = SweepFolder(run_dir.absolute().parent)
    return sweep if sweep.is_sweep() else None
