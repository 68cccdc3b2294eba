"""`make reproduce`: its plan composes, a stop and a failure lose nothing, and README.md shows what run folders hold."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from causal_lm_router.config.compose import compose_config
from causal_lm_router.config.plain import flatten
from tests.conftest import CHECKOUT
from tests.evaluation.test_comparison import write_run

EXPERIMENTS = CHECKOUT / "experiments"
ABLATION = "llmrouters-causal-lm-router-its-choices-one-by-one"
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d*\.\d+(?![\w.])|(?<![\w.])[-+]?\d+(?:\.\d+)?%")
"""A number that is measured: with decimals or a percent sign."""


@pytest.fixture
def reproduce(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, imported as it is when run: its folder is on the path."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import reproduce

    return reproduce


@pytest.fixture
def tables(reproduce: ModuleType) -> ModuleType:
    import reproduction_tables

    return reproduction_tables


def test_the_plan_takes_under_four_hours_on_two_cores(reproduce: ModuleType) -> None:
    jobs = list(reproduce.make_jobs(reproduce.read_plan(), Path("out"), Path("data")))
    assert sum(job.minutes for job in jobs) / 2 < 4 * 60
    assert len({job.folder for job in jobs}) == len(jobs)


@pytest.mark.slow
def test_every_run_of_the_plan_composes(reproduce: ModuleType) -> None:
    composed = set()
    for section in reproduce.read_plan():
        for number, row in enumerate(section.rows):
            # The same row of two sections composes alike, and an evaluation composes on the folder of its run.
            key = (row.command, *row.settings)
            if row.command in ("train", "baseline") and (key not in composed or number == 0):
                # All seeds and folds of a section's first row, one of the others'.
                for run in section.runs_of(row)[: None if number == 0 else 1]:
                    compose_config([*section.settings, *row.settings, *run, "run_dir=r"], row.command)
                composed.add(key)
    assert len(composed) > 30


@pytest.mark.slow
def test_each_choice_of_llmrouter_is_mended_alone_and_put_back_alone(reproduce: ModuleType) -> None:
    section = next(one for one in reproduce.read_plan() if one.name == ABLATION)
    values = {row.name: settings_of(section, row) for row in section.rows if row.command == "train"}
    # What is read out of the same weights changes settings of an evaluation.
    for row in section.rows:
        if row.command == "evaluate":
            values[row.name] = values[row.weights_of] | {key: text for key, _, text in map(cut, row.settings)}
    choices = [name.removeprefix("mended: ") for name in values if name.startswith("mended: ")]
    assert len(choices) == 8
    for choice in choices:
        mended = differing(values[f"mended: {choice}"], values["as LLMRouter"])
        put_back = differing(values[f"put back: {choice}"], values["all mended"])
        # One setting differs, and it is the same one on both sides.
        assert len(mended) == 1 and mended == put_back


def settings_of(section: Any, row: Any) -> Mapping[str, Any]:
    config = compose_config([*section.settings, *row.settings, "run_dir=r"])
    return flatten(OmegaConf.to_container(OmegaConf.structured(config)))


def cut(setting: str) -> tuple[str, str, str]:
    return setting.partition("=")


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    # A group chosen as a whole, such as parsing=llmrouter, stands for the keys in it.
    return sorted({key.partition(".")[0] for key in {*one, *other} if one.get(key) != other.get(key)})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"rows": [{"name": "a", "steps": 3}]}, r"s: a: keys must be of against, command, .*got steps"),
        ({"rows": [{"name": "a", "command": "route"}]}, r"s: a: command must be train, .*got 'route'"),
        ({"rows": [{"name": "a", "command": "evaluate"}]}, r"s: a: weights_of must be a row"),
        ({"rows": [{"name": "a b"}, {"name": "a, b"}]}, r"s: rows must differ in the letters of their names"),
        ({"rows": [{"name": "a"}], "against": ["b"]}, r"s: against must be rows, got \['b'\]"),
    ],
)
def test_a_plan_that_cannot_be_run_is_named(
    reproduce: ModuleType, section: dict[str, Any], message: str, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump({"s": {"settings": [], **section}}))
    with pytest.raises(ValueError, match=message):
        reproduce.read_plan(plan)


@pytest.fixture
def small(reproduce: ModuleType, tmp_path: Path) -> Any:
    """A section with the run folders of two folds: `a` is best on the first five of 10 queries, `b` on the others."""
    plan = {
        "small": {
            "settings": [],
            "runs": [["data.test_fold=0"], ["data.test_fold=1"]],
            "against": ["table"],
            "figure": ["best single", "table"],
            "rows": [{"name": "table"}, {"name": "router"}, {"name": "never run"}],
        }
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    for row, routes in (("table", "aaaaaaaaaa"), ("router", "aaaaabbbb-")):
        for fold in (0, 1):
            run = write_run(tmp_path / "runs" / "small" / row / f"data.test_fold_{fold}", routes, prefix=f"fold{fold}")
            (run / "config.yaml").write_text(f"seed: 0\ndata: {{test_fold: {fold}}}\n")
    (tmp_path / "README.md").write_text("# R\n\n## Small\n\n<!-- table: small -->\nold\n<!-- end -->\n\nText.\n")
    (section,) = reproduce.read_plan(tmp_path / "plan.yaml")
    return section


def test_a_table_is_made_from_run_folders_alone(tables: ModuleType, small: Any, tmp_path: Path) -> None:
    missing = tables.write_sections([small], tmp_path / "runs", tmp_path)
    assert [folder.parent.name for folder in missing] == ["never_run", "never_run"]
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# R\n\n## Small\n\n<!-- table: small -->\n| router | runs | mean score")
    assert text.endswith("<!-- end -->\n\nText.\n") and "old" not in text
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:]] for cells in map(split, text.splitlines()[7:10])}
    # Both folds are one sample of 20 queries; the router names nobody on two of them.
    assert rows["router"][:2] == ["2", "0.900 [0.683, 0.988]"]
    assert rows["router"][2].startswith("+40.0 [") and rows["router"][-2].startswith("+40.0 [")
    assert rows["router"][3].startswith("90.0%") and rows["router"][4].startswith("10.0%")
    assert rows["table"][-2] == ""
    assert set(rows["never run"][1:-1]) == {"missing"}
    assert (tmp_path / "figures" / "small.png").stat().st_size > 10_000
    assert (tmp_path / "runs" / "small.pdf").is_file()


def test_runs_on_other_tasks_are_paired_in_their_order(tables: ModuleType, small: Any, tmp_path: Path) -> None:
    # As where each run holds other tasks out: same seed, same fold, other queries.
    for config in (tmp_path / "runs").rglob("config.yaml"):
        config.write_text("seed: 0\n")
    tables.write_sections([small], tmp_path / "runs", tmp_path)
    (router,) = [row for row in tables.read_results(tmp_path)["small"]["rows"] if row["name"] == "router"]
    assert router["estimates"]["over table"][0] == pytest.approx(0.4)


def test_a_deleted_run_leaves_no_old_number(tables: ModuleType, small: Any, tmp_path: Path) -> None:
    tables.write_sections([small], tmp_path / "runs", tmp_path)
    gone = tmp_path / "runs" / "small" / "router" / "data.test_fold_1"
    gone.rename(tmp_path / "gone")
    assert gone in tables.write_sections([small], tmp_path / "runs", tmp_path)
    assert "| router | 1 of 2 |" in (tmp_path / "README.md").read_text()
    gone.with_name("data.test_fold_0").rename(tmp_path / "gone, too")
    tables.write_sections([small], tmp_path / "runs", tmp_path)
    assert re.search(r"\| router \| 0 of 2 \|( missing \|)+", (tmp_path / "README.md").read_text())


def split(line: str) -> list[str]:
    return line.split("|")


def test_a_section_without_a_place_for_its_table_is_named(tables: ModuleType, small: Any, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# R\n")
    with pytest.raises(ValueError, match=r"README\.md must have <!-- table: small -->"):
        tables.write_sections([small], tmp_path / "runs", tmp_path)


def test_every_table_of_the_readme_is_what_was_measured(reproduce: ModuleType, tables: ModuleType) -> None:
    text, results = (EXPERIMENTS / "README.md").read_text(), tables.read_results(EXPERIMENTS)
    names = [section.name for section in reproduce.read_plan()]
    assert re.findall(r"<!-- table: (.*) -->", text) == names
    assert set(results) == set(names)
    for name in names:
        assert tables.fill(text, name, results[name]) == text, f"{name}: run experiments/reproduce.py --tables"


def test_no_number_in_the_readme_is_typed_by_hand(reproduce: ModuleType) -> None:
    text = (EXPERIMENTS / "README.md").read_text()
    for section in re.split(r"(?m)^(?=## )", text)[1:]:
        heading = section.partition("\n")[0]
        table, prose = "".join(re.findall(r"<!-- table.*?<!-- end -->", section, re.DOTALL)), section
        # Commands and settings in backticks are not measured, nor are the numbers of papers.
        for pattern in (r"<!-- table.*?<!-- end -->", r"```.*?```", r"`[^`]*`", r"arXiv [\d.]+"):
            prose = re.sub(pattern, "", prose, flags=re.DOTALL)
        measured = {plain(one) for one in _NUMBER.findall(table)}
        typed = [one for one in _NUMBER.findall(prose) if plain(one) not in measured]
        assert not typed, f"{heading}: {typed} stand in no cell of its table"
        # The claim comes first.
        assert section.partition("\n\n")[2].startswith("**"), heading


def plain(number: str) -> str:
    """A number as tables have it: 0.5 for .5, and 3.5 for +3.5."""
    return re.sub(r"^([-+]?)\.", r"\g<1>0.", number).lstrip("+")


FAST = ["experiment=quickstart", "data.simulated.num_queries=30", "trainer.num_threads=1"]


@pytest.mark.slow
def test_a_stop_and_a_failure_lose_nothing(tmp_path: Path) -> None:
    rows = [
        {"name": "broken", "command": "baseline", "settings": ["baseline=knn_vote", "baseline.k=1000"]},
        {"name": "first", "command": "baseline", "settings": ["baseline=random"]},
    ]
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"small": {"settings": FAST, "rows": rows}}))
    (tmp_path / "README.md").write_text("<!-- table: small -->\n<!-- end -->\n")
    root = tmp_path / "runs"
    words = [sys.executable, "experiments/reproduce.py", str(root), "--data", str(tmp_path), "--jobs", "1"]
    command = [*words, "--plan", str(tmp_path / "plan.yaml")]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    # The first to end is the one that cannot be run; then it is stopped in the midst of the next.
    assert "broken/run: FAILED, see" in process.stdout.readline()
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    process.stdout.close()
    assert not (root / "small" / "first" / "run" / "report.json").exists()
    again = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert {path.parents[1].name for path in root.glob("small/*/run/report.json")} == {"first"}
    assert "broken/run: failed, see" in again.stderr and again.returncode == 1
    assert "baseline.k must be in 1.." in (root / "small" / "broken" / "run.log").read_text()
    # Runs of other settings are not taken for today's.
    rows[1]["settings"] = ["baseline=oracle"]
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"small": {"settings": FAST, "rows": rows}}))
    other = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert (
        other.returncode == 1
        and f"remove these to run them anew:\n  {root / 'small' / 'first' / 'run'}" in other.stderr
    )
