"""Sessions in turn: a job's results and the process's state do not depend on the jobs before it."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from causal_lm_router.config.compose import compose_config
from causal_lm_router.generation.transformers import TransformersGenerator
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.session import Session, load_data, open_session
from causal_lm_router.runs.train_run import train_router
from causal_lm_router.runs.workbench import Workbench, open_workbench

JOB = ["lora.lora_dropout=0.2", "inference.temperature=0.7", "evaluation.every_n_steps=2", "lora.merge_lora=true"]
OTHERS = [
    ["seed=5", "lora.lora_r=4", "lora=all_linear", "trainer.num_threads=2", "prompt.max_length=100"],
    # Eager attention: torch's own in bfloat16 fails where AMX is there and ATEN_CPU_CAPABILITY forbids what it needs.
    [
        "lora.use_lora=false",
        "trainer.precision=bf16-mixed",
        "base_model.attn_implementation=eager",
        "+trainer.extra.deterministic=true",
        "data.split_seed=4",
    ],
]


def run_job(folder: Path, overrides: list[str], workbench: Workbench | None = None) -> None:
    """Run `train debug=smoke` with overrides; a function of the module, so that another process can run it."""
    fixed = ["data=simulated", "debug=smoke"]
    fixed += ["trainer.progress_bar=false", "data.simulated.num_queries=60", f"run_dir={folder}"]
    train_router(compose_config([*fixed, *overrides]), workbench)


def results(folder: Path) -> dict[str, Any]:
    """Everything a run found out, to the bit, but how fast it was."""
    rows = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    # PEFT writes the names of the layers into its settings in an order that each process has anew; checksums follow.
    files = [
        path
        for path in folder.rglob("*")
        if path.parent.name in ("adapter", "merged") and path.name not in ("adapter_config.json", "checksums.txt")
    ]
    files += [folder / name for name in ("outcomes.jsonl", "validation/outcomes.jsonl", "router.json")]
    content = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return {"metrics": [row for row in rows if "queries_per_second" not in row], **content}


def state() -> list[Any]:
    """What results depend on besides the config."""
    return [
        random.getstate(),
        np.random.get_state()[1].tobytes(),  # type: ignore[index,union-attr]
        torch.get_rng_state().numpy().tobytes(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.get_default_dtype(),
    ]


def test_a_job_does_not_depend_on_those_before_it(tmp_path: Path, forkserver: ForkServerContext) -> None:
    alone = forkserver.Process(target=run_job, args=(tmp_path / "alone", JOB))
    alone.start()
    folders = [tmp_path / name for name in ("first", "second", "third", "fourth")]
    before = state()
    with Workbench() as workbench:
        for folder, overrides in zip(folders, (JOB, *OTHERS, JOB), strict=True):
            run_job(folder, overrides, workbench)
            assert state() == before
    alone.join()
    assert alone.exitcode == 0
    first, second, third, fourth = (results(folder) for folder in folders)
    assert first == fourth
    assert {"adapter/adapter_model.safetensors", "merged/model.safetensors"} < first.keys()
    assert first == results(tmp_path / "alone")
    assert first["outcomes.jsonl"] != second["outcomes.jsonl"]
    assert first["metrics"] != third["metrics"]


@pytest.mark.slow
def test_a_failed_job_leaves_nothing_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state()
    with Workbench() as workbench:
        diverging = [
            "optim.learning_rate=1e30",
            "optim.max_grad_norm=null",
            "optim.warmup_ratio=0",
            "trainer.num_threads=2",
        ]
        with pytest.raises(ValueError, match="learning_rate"):
            run_job(tmp_path / "failed", [*JOB, *diverging], workbench)
        assert state() == before
        run_job(tmp_path / "next", JOB, workbench)
    run_job(tmp_path / "alone", JOB)
    assert results(tmp_path / "next") == results(tmp_path / "alone")


@pytest.fixture
def opened(tiny_config: Callable[..., Any], tmp_path: Path) -> Callable[..., AbstractContextManager[Session]]:
    """Function that opens a session of a config with overrides on a workbench of its own."""

    @contextmanager
    def open_one(*overrides: str) -> Iterator[Session]:
        config = tiny_config(*overrides)
        with Workbench() as workbench:
            data = load_data(config.data, workbench)
            with open_session(config, RunFolder(tmp_path), data, workbench) as session:
                yield session

    return open_one


def test_a_run_without_workbench_closes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Workbench] = []
    monkeypatch.setattr(Workbench, "close", lambda self: closed.append(self))
    with open_workbench(None) as own:
        assert closed == []
    assert closed == [own]
    with Workbench() as given, open_workbench(given) as used:
        assert used is given
    assert closed == [own, given], "a given one is closed by its owner alone"


@pytest.mark.slow
def test_a_generator_is_made_when_it_is_asked_for(
    opened: Callable[..., AbstractContextManager[Session]], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Any] = []
    monkeypatch.setattr(TransformersGenerator, "close", lambda self: closed.append(self))
    with opened():
        pass
    assert closed == []
    with opened() as session:
        generator = session.generator
        assert session.generator is generator
    assert closed == [generator]


@pytest.mark.slow
def test_threads_are_as_configured_inside_and_as_before_after(
    opened: Callable[..., AbstractContextManager[Session]],
) -> None:
    before = torch.get_num_threads()
    with opened(f"trainer.num_threads={before + 1}"):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with opened("trainer.num_threads=null"):
        assert torch.get_num_threads() == before
