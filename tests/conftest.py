"""Fixtures shared by all tests."""

import copy
import dataclasses
import functools
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from omegaconf import OmegaConf

from causal_lm_router import terminal
from causal_lm_router.config import DataConfig, PromptConfig
from causal_lm_router.config.compose import compose_config

pytest_plugins = ["tests.light", "tests.wandb_server"]

CHECKOUT = Path(__file__).resolve().parents[1]
CACHE = "CAUSAL_LM_ROUTER_CACHE"


def pytest_configure(config: pytest.Config) -> None:
    """Keep base models and encoded data out of the home folder, in a temporary one unless the caller names another."""
    if CACHE not in os.environ:
        os.environ[CACHE] = tempfile.mkdtemp(prefix="causal-lm-router-tests-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ[CACHE], ignore_errors=True))
    # As the commands do, and for their reason; read when torch is imported, which is later.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


@pytest.fixture(autouse=True)
def root_logging() -> Iterator[None]:
    """Take away the log handlers that a command run inside a test leaves behind: they write to that test's streams."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    terminal.show_bars(True)
    logging.captureWarnings(False)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


class Result(NamedTuple):
    """What a command line did."""

    status: int
    output: str
    errors: str


@pytest.fixture
def main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Result]]:
    """Function that runs a command line in this process, in an empty folder."""
    root = logging.getLogger()
    kept, level = list(root.handlers), root.level
    from causal_lm_router.commands import cli

    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.chdir(tmp_path)

    def run_main(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["causal-lm-router", *arguments])
        status = 0
        try:
            cli.main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        return Result(status, *capsys.readouterr())

    yield run_main
    # Hydra sets up logging for its job: to this test's standard output and to a file in its folder.
    for handler in [handler for handler in root.handlers if handler not in kept]:
        handler.close()
    root.handlers[:] = kept
    root.setLevel(level)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real routing data beside the checkout; skips where it is absent."""
    folder = CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real routing data at {folder}")
    return folder


@pytest.fixture(scope="session")
def make_data_config() -> Callable[..., DataConfig]:
    """Function that returns the config of `data=<source>` with the given fields in it; enums may be given by value.

    RouteLLM's contaminated prompts are kept, unless a field says otherwise: most tests have no list of them.
    """
    needed = {"own": ["data.function=lab:load"]}
    shipped = functools.cache(
        lambda source: compose_config([f"data={source}", *needed.get(source, []), "run_dir=none"]).data
    )

    def make(source: str, **fields: Any) -> DataConfig:
        kept = {"drop_contaminated": False} if source == "routellm" else {}
        made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(shipped(source)), kept | fields))
        assert isinstance(made, DataConfig)
        if problems := list(made.problems()):
            raise ValueError("\n".join(problems))
        return made

    return make


@dataclasses.dataclass(frozen=True)
class TinyBase:
    """The prepared tiny base model: its part of the config, its folder, its tokenizer."""

    config: Any
    path: str
    tokenizer: Any


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., Any]:
    """Function that returns the config of `train data=simulated debug=smoke <overrides>`.

    It has the tiny base model, the transformers backend and no W&B.
    """
    fixed = ["data=simulated", "debug=smoke", "trainer.progress_bar=false", "run_dir=none"]
    # Composing takes a tenth of a second, and many tests ask for the same.
    composed = functools.cache(lambda *overrides: compose_config([*fixed, *overrides]))
    return lambda *overrides: copy.deepcopy(composed(*overrides))


@pytest.fixture(scope="session")
def tiny_base(tiny_config: Callable[..., Any]) -> TinyBase:
    """The tiny base model, loaded by the same path as any other; torch keeps to one thread from here on."""
    import torch

    from causal_lm_router.models.base_model import load_tokenizer, prepare_base_model

    torch.set_num_threads(1)
    config = tiny_config().base_model
    path = prepare_base_model(config)
    return TinyBase(config, path, load_tokenizer(path, config))


@pytest.fixture(scope="session")
def smoke_run(tiny_base: TinyBase, tiny_config: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `train debug=smoke`; its router learned next to nothing."""
    from causal_lm_router.runs.train_run import train_router

    folder = tmp_path_factory.mktemp("runs") / "smoke"
    train_router(tiny_config(f"run_dir={folder}"))
    return folder


@pytest.fixture(scope="session")
def forkserver() -> ForkServerContext:
    """Starts processes that have the package's heavy imports behind them already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["causal_lm_router.runs.train_run", "causal_lm_router.generation.transformers"])
    return context


@pytest.fixture
def fit_tiny(
    tiny_base: TinyBase, tiny_config: Callable[..., Any], tmp_path: Path
) -> Callable[..., dict[str, list[float]]]:
    """Function that trains the tiny base model on 22 queries and returns the metrics of every step by name.

    It takes overrides, `folder` to go on in a run folder, and `workbench` to share the base model with other calls.
    Dropout is off unless an override puts it on; nothing is evaluated.
    """
    from causal_lm_router.prompting.encoder import Encoder
    from causal_lm_router.runs.fit import fit
    from causal_lm_router.runs.run_folder import RunFolder
    from causal_lm_router.runs.session import Session
    from causal_lm_router.runs.tracking import Tracking, read_metrics
    from causal_lm_router.runs.tracking.metrics_csv import MetricsCsv
    from causal_lm_router.runs.workbench import Workbench
    from causal_lm_router.training.checkpoint import checkpoint_step, last_checkpoint

    def run(*overrides: str, folder: Path | None = None, workbench: Workbench | None = None) -> dict[str, list[float]]:
        still = ["lora.lora_dropout=0.0", "evaluation=final_only", "trainer.num_epochs=2", "optim.learning_rate=0.01"]
        config = tiny_config(*still, "trainer.batch_size=8", *overrides)
        folder = folder or Path(tempfile.mkdtemp(dir=tmp_path))
        encoder = Encoder(tiny_base.tokenizer, config.prompt, name_targets(["alpha", "beta-2"], config.prompt))
        session = Session(
            config=config,
            configured=config,
            folder=RunFolder(folder),
            data=tiny_data(),
            source=tiny_base.path,
            encoder=encoder,
            workbench=workbench or Workbench(),
        )
        metrics_csv = MetricsCsv(folder)
        metrics_csv.drop_after(checkpoint_step(last_checkpoint(folder / "checkpoints")))
        fit(session, Tracking([metrics_csv], None, folder, log_adapter=False))
        metrics: dict[str, list[float]] = {}
        for row in read_metrics(folder / "metrics.csv"):
            metrics.setdefault(row.name.removeprefix("train/"), []).append(row.value)
        return metrics

    return run


def name_targets(names: Sequence[str], config: PromptConfig) -> Any:
    """The targets of a pool whose candidates stand for themselves."""
    from causal_lm_router.config.prompting import TargetKind
    from causal_lm_router.prompting.targets import Targets

    return Targets(TargetKind.name, tuple(names), config.target)


def tiny_data() -> Any:
    """22 training queries of 1 to 43 characters; the label follows from the first letter."""
    from causal_lm_router.data.prepared import PreparedData
    from causal_lm_router.data.split import RoutingSplits
    from causal_lm_router.routing import Candidate, RoutingExample

    examples, labels = [], {}
    for number in range(22):
        query = ("a" if number % 3 else "b") + " 7" * number
        labels[str(number)] = "alpha" if number % 3 else "beta-2"
        scores = {name: float(name == labels[str(number)]) for name in ("alpha", "beta-2")}
        examples.append(RoutingExample(str(number), query, "task", scores))
    pool = (Candidate("alpha"), Candidate("beta-2"))
    return PreparedData(RoutingSplits(examples, examples[:1], [], pool, audit=None), examples, labels, "alpha")
