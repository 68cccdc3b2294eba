"""The run folder: where everything lies that a run leaves.

config.yaml      the resolved config            report.json      every number of the final evaluation
router.json      pool and best single           outcomes.jsonl   a line per query of it
neighbours.safetensors   with target=outcome: the training queries as vectors, with their scores
adapter/         weights (PEFT) and card        metrics.csv      step,epoch,name,value
merged/          merged checkpoint              *.png            confusion, learning curve, routes, ...
checkpoints/     to resume from                 validation/      report.json and outcomes.jsonl of that split
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from causal_lm_router.config.plain import describe_differences, identity_of
from causal_lm_router.config.run_config import load_run_config
from causal_lm_router.files.checksums import DamagedError, check_files, read_checked, write_checked
from causal_lm_router.files.locks import hold_folder, is_first_process
from causal_lm_router.files.writing import refuse_links, remove_leftovers
from causal_lm_router.routing import Candidate, check_pool


@dataclass(frozen=True)
class RouterMetadata:
    """What routing needs to know besides config and weights: the pool, the best single candidate and costs on train."""

    pool: tuple[Candidate, ...]
    best_single: str
    mean_costs: Mapping[str, float] | None = None
    """Mean cost (USD) of every candidate on train; None where costs are unknown."""

    @property
    def candidate_names(self) -> list[str]:
        """Candidate names in pool order."""
        return [candidate.name for candidate in self.pool]


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def weights(self) -> Path:
        """Trained weights: a PEFT adapter, or a full checkpoint where all weights were trained."""
        return self.path / "adapter"

    @property
    def card(self) -> Path:
        """The model card: what the weights are and how to load them."""
        return self.weights / "README.md"

    @property
    def merged(self) -> Path:
        """The merged checkpoint."""
        return self.path / "merged"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints to resume from."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """Metrics over the steps of training."""
        return self.path / "metrics.csv"

    @property
    def validation(self) -> Path:
        """Report and outcomes of the trained weights on the whole validation split."""
        return self.path / "validation"

    @property
    def neighbours(self) -> Path:
        """The scored queries that the records of candidates come from, with `target=outcome`."""
        return self.path / "neighbours.safetensors"

    @property
    def report(self) -> Path:
        """Report of the final evaluation; written last, so it marks a finished run."""
        return self.path / "report.json"

    def write_metadata(self, metadata: RouterMetadata) -> None:
        """Write router.json."""
        text = json.dumps(asdict(metadata), indent=2, ensure_ascii=False)
        write_checked(self.path / "router.json", text + "\n")

    def read_metadata(self) -> RouterMetadata:
        """Return router.json's content.

        Raises:
            FileNotFoundError: the run has not come that far.
            ValueError: router.json or a file of the weights is damaged, or router.json is not that of a router.
        """
        path = self.path / "router.json"
        if not path.is_file() or not self.weights.is_dir():
            raise FileNotFoundError(
                f"run_dir must hold a trained router, got {self.path}: a run that was interrupted can be resumed"
            )
        check_files(self.weights)
        try:
            plain = json.loads(read_checked(path))
            pool = tuple(Candidate(**candidate) for candidate in plain["pool"])
            check_pool([candidate.name for candidate in pool])
            return RouterMetadata(pool, plain["best_single"], plain.get("mean_costs"))
        except DamagedError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path}: must hold the pool and best_single of a router, got {type(error).__name__}: {error}; restore "
                "it from a copy"
            ) from error


@contextmanager
def own_run(folder: RunFolder) -> Iterator[None]:
    """Be the only one who works in a run folder, cleared of what killed processes left half written, until the end.

    Raises:
        ValueError: links in the folder lead out of it.
        FolderHeldError: somebody else works there.
    """
    if is_first_process():
        refuse_links(folder.path)
    with hold_folder(folder.path):
        if is_first_process():
            remove_leftovers(folder.path)
        yield


def check_folder(folder: RunFolder, settings: Mapping[str, Any]) -> None:
    """Check that a run of these settings (plain, as in config.yaml) may start or go on in the folder.

    Raises:
        ValueError: the folder holds a finished run, or one of a config that gives other results.
    """
    if folder.report.is_file():
        raise ValueError(f"run_dir must be a folder without a finished run, got {folder.path}")
    if not folder.config.is_file():
        return
    different = describe_differences(identity_of(load_run_config(folder.path)), identity_of(settings))
    if different:
        raise ValueError(
            f"run_dir must be another folder, got {folder.path}, which holds a run with {', '.join(different)}"
        )
