"""A secret on a command line: in no file, in no line of the terminal, and handed over again by its variable."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from causal_lm_router.config import redact
from causal_lm_router.runs.job_log import read_statuses
from causal_lm_router.runs.sweep_folder import SweepFolder
from tests.conftest import Result

pytestmark = pytest.mark.slow

SMALL = ["data=simulated", "debug=smoke", "data.simulated.num_queries=60", "lora.merge_lora=false"]
KEY = "inference.engine_args.hf_token"
SECRET = "a-token-as-typed-42"


@pytest.fixture(autouse=True)
def no_secrets_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_typed", set())
    monkeypatch.delenv("HF_TOKEN", raising=False)


def files_with(text: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_a_run_keeps_no_secret_and_gets_it_again(
    main: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = main("train", *SMALL, f"+{KEY}={SECRET}", "tracking.wandb.mode=offline", "run_dir=run")
    assert trained.status == 0, trained.errors
    assert SECRET not in trained.output + trained.errors
    assert files_with(SECRET, tmp_path) == []
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["inference"]["engine_args"] == {"hf_token": "<redacted>"}
    # Nobody goes on without it by mistake.
    refused = main("evaluate", "run_dir=run")
    assert f"{KEY} must be given again, as {KEY}=...: a run folder (run) keeps no secrets" in refused.errors
    monkeypatch.setenv("HF_TOKEN", "another-token-of-today")
    again = f"{KEY}=${{oc.env:HF_TOKEN}}"
    assert main("evaluate", "run_dir=run", again).status == 0
    # The run goes on too: another secret is no other setting.
    (tmp_path / "run" / "report.json").unlink()
    resumed = main("resume", "run_dir=run", again)
    assert resumed.status == 0, resumed.errors
    assert (tmp_path / "run" / "report.json").is_file()
    assert files_with("another-token-of-today", tmp_path) == []


def test_a_sweep_hands_a_secret_to_the_process_of_a_job(main: Callable[..., Result], tmp_path: Path) -> None:
    swept = ["-m", *SMALL, f"+{KEY}={SECRET}", "sweep.name=s", "sweep.isolated=true", "sweep.report=false", "seed=0"]
    done = main("train", *swept)
    assert done.status == 0, done.output + done.errors
    assert SECRET not in done.output + done.errors
    assert files_with(SECRET, tmp_path) == []
    statuses = read_statuses(SweepFolder(tmp_path / "outputs" / "sweeps" / "s"))
    assert [status.state.value for status in statuses.values()] == ["done"]
    assert f"+{KEY}=<redacted>" in " ".join(next(iter(statuses.values())).overrides)
    # The same command has nothing left to do, whatever the secret is.
    assert "1 done, 0 to run" in main("train", *[word.replace(SECRET, "another-token-here") for word in swept]).output
