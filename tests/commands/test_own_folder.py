"""Commands into one folder: the second one says who works there and touches nothing; folders by time are new ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra  # noqa: F401 - so that `now:` is known
import pytest
from hydra.core.utils import setup_globals
from omegaconf import OmegaConf

from causal_lm_router.commands.own_folder import OwnFolder, held
from causal_lm_router.files import locks
from causal_lm_router.runs.run_folder import RunFolder, own_run
from causal_lm_router.sweeps.launched_jobs import SweepJobs
from tests.conftest import Result
from tests.files.test_locks import held_elsewhere


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "baseline", "resume"])
def test_a_folder_in_which_somebody_works_stays_as_it_is(
    main: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(locks, "_SHORT_WAIT_S", 0.0)
    run = tmp_path / "run"
    settings = ["data=simulated", "debug=smoke"]
    assert main("train", *settings, f"run_dir={run}", "--cfg", "job").status == 0
    run.mkdir()
    (run / "config.yaml").write_text(main("train", *settings, f"run_dir={run}", "--cfg", "job").output)
    arguments = {"train": settings, "baseline": ["baseline=random", *settings], "resume": []}[command]
    with held_elsewhere(run):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        status, output, errors = main(
            command,
            *arguments,
            "seed=1" if command != "resume" else f"run_dir={run}",
            *([f"run_dir={run}"] if command != "resume" else []),
        )
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert (status, output) == (1, "")
    assert errors.startswith("error: run_dir must be a folder in which nobody works, got run: process ")
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "is_finished"),
    [("train", True), ("baseline", True), ("resume", True), ("train", False), ("baseline", False)],
)
def test_a_folder_of_another_run_stays_as_it_is(
    main: Callable[..., Result], tmp_path: Path, command: str, is_finished: bool
) -> None:
    run = tmp_path / "run"
    settings = ["data=simulated", "debug=smoke", f"run_dir={run}"]
    composed = main("train", *settings, "--cfg", "job").output
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "config.yaml").write_text("what Hydra wrote for the run that is there")
    (run / "config.yaml").write_text(composed)
    if is_finished:
        (run / "report.json").touch()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    changed = {"train": ["seed=7"], "baseline": ["baseline=random"], "resume": []}[command]
    status, _, errors = main(command, *(settings[2:] if command == "resume" else settings), *changed)
    assert status == 1
    assert errors.startswith("error: run_dir must be ")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", [".lock", "train.log", ".hydra/config.yaml"])
def test_a_folder_with_links_to_elsewhere_stays_as_it_is(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside, run = tmp_path / "outside", tmp_path / "run"
    outside.write_text("kept\n")
    (run / name).parent.mkdir(parents=True)
    (run / name).symlink_to(outside)
    before = sorted(run.rglob("*"))
    config: Any = OmegaConf.create({"run_dir": str(run), "hydra": {"run": {"dir": "${run_dir}"}}})
    # By the command, from Python, and as the job of a sweep.
    with held, pytest.raises(SystemExit):
        OwnFolder().on_run_start(config)
    assert capsys.readouterr().err == f"error: {run / name}: must lie in {run} itself, got a link to {outside}\n"
    with pytest.raises(ValueError, match="got a link to"), own_run(RunFolder(run)):
        pass
    jobs: Any = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path / "run")}}})
    with pytest.raises(ValueError, match="got a link to"):
        SweepJobs(jobs, None, None).start()  # type: ignore[arg-type]
    assert (outside.read_text(), sorted(run.rglob("*"))) == ("kept\n", before)


def test_two_runs_of_one_second_get_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup_globals()
    monkeypatch.chdir(tmp_path)
    chosen = []
    for key in ("run_dir", "run_dir", "output_dir"):
        # The year alone, so that no second ends in between.
        config: Any = OmegaConf.create({key: "outputs/${now:%Y}", "hydra": {"run": {"dir": f"${{{key}}}"}}})
        with held:
            OwnFolder().on_run_start(config)
            assert locks.is_held(Path(config.hydra.run.dir))
            (Path(config.hydra.run.dir) / "report.json").touch()
        chosen.append(config[key])
    assert chosen == [chosen[0], f"{chosen[0]}_2", f"{chosen[0]}_3"]
    config = OmegaConf.create({"run_dir": "outputs/mine", "hydra": {"run": {"dir": "${run_dir}"}}})
    for _ in range(2):
        with held:
            OwnFolder().on_run_start(config)
    assert config.run_dir == "outputs/mine"
