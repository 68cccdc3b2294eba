"""A source, an objective, a decoding and a baseline of the user's own, from outside the checkout, as documented."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

MODULE = "my_lab.py"
SMALL = ["debug=smoke", "trainer.progress_bar=false", "data.test_fraction=0.3", "data.validation_fraction=0.2"]
OWN_DATA = ["data=own", "data.function=my_lab:load_arena", "data.path=arena.txt", "+data.options.strong=large"]
OWN_ROUTER = ["objective=own", "objective.function=my_lab:hinge_loss", "+objective.options.margin=0.5"]
OWN_DECODING = ["decoding=own", "decoding.function=my_lab:decode_by_first_token"]
OWN_BASELINE = ["baseline=own", "baseline.function=my_lab:fit_by_length"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the user's with the documented module and some data."""
    folder = tmp_path_factory.mktemp("lab")
    page = (CHECKOUT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (folder / MODULE).write_text("\n\n".join(blocks), encoding="utf-8")
    queries = [f"question {number} of {'few' if number % 2 else 'many, many more'} words" for number in range(60)]
    (folder / "arena.txt").write_text("\n".join(queries) + "\n", encoding="utf-8")
    return folder


def run(lab: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from causal_lm_router.commands.cli import main; sys.argv[0] = 'causal-lm-router'; main()"
    # As an installed command: the working directory is not on Python's path.
    command = [sys.executable, "-P", "-c", code, *arguments]
    paths = [path for path in sys.path if path and Path(path) not in (CHECKOUT, Path.cwd())]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT / "src"), *paths])}
    return subprocess.run(command, cwd=lab, env=environment, capture_output=True, text=True, check=False)


def read_report(folder: Path) -> dict[str, object]:
    report: dict[str, object] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


@pytest.fixture(scope="module")
def trained(lab: Path) -> Path:
    """The run folder of a router with source, objective and decoding of the user's own."""
    done = run(lab, "train", *SMALL, *OWN_DATA, *OWN_ROUTER, *OWN_DECODING, "run_dir=own_run")
    assert done.returncode == 0, done.stderr
    return lab / "own_run"


def test_a_router_is_trained_and_evaluated_with_the_users_functions(trained: Path) -> None:
    report = read_report(trained)
    assert report["candidate_names"] == ["small", "large"]
    assert report["decoding"]["method"] == "own"  # type: ignore[index]
    losses = [line for line in (trained / "metrics.csv").read_text().splitlines() if ",train/loss," in line]
    assert losses and all(float(line.rsplit(",", 1)[1]) >= 0 for line in losses)


def test_a_baseline_of_the_users_own_is_evaluated(lab: Path) -> None:
    done = run(lab, "baseline", *SMALL, *OWN_DATA, *OWN_BASELINE, "run_dir=own_baseline")
    assert done.returncode == 0, done.stderr
    # The documented baseline goes by the length of the query, which decides who is right here.
    assert read_report(lab / "own_baseline")["routing_accuracy"]["value"] == 1.0  # type: ignore[index]


def test_a_run_folder_names_no_code(lab: Path, trained: Path) -> None:
    done = run(lab, "evaluate", f"run_dir={trained}")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "data.function must be given again, as data.function=my_lab:load_arena" in done.stderr


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("my_lab:missing", "data.function must name a function that can be imported, got 'my_lab:missing'"),
        ("nowhere:load", "data.function must name a function that can be imported, got 'nowhere:load'"),
        ("my_lab:hinge_loss", r"data.function must name a function that is called as hinge_loss(config)"),
        ("my_lab", "data.function must be the name of a Python function, package.module:function, got 'my_lab'"),
    ],
)
def test_another_function_is_refused(lab: Path, function: str, message: str) -> None:
    done = run(lab, "train", *SMALL, "data=own", f"data.function={function}", "run_dir=none")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert message in done.stderr
    assert not (lab / "none").exists()
