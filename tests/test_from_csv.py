"""The page from a CSV file to a router: every command and the Python code on it, one after the other."""

import csv
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, Result
from tests.documents import blocks, shell_words

PAGE = CHECKOUT / "docs" / "from_csv.md"
SMALL = ["debug=smoke", "trainer.progress_bar=false"]
"""The page trains for minutes; here a tiny base model is enough."""
ROUTES = {"small", "large"}


def write_table(path: Path) -> None:
    """Write a table like that of the page, with as many rows as a split needs."""
    (example,) = blocks(PAGE, "csv")
    header, *rows = csv.reader(example.splitlines())
    draw = random.Random(0)
    for number in range(120):
        task = draw.choice(["arithmetic", "proofs"])
        small = float(task == "arithmetic" or draw.random() < 0.2)
        rows.append([f"{task} question {number}: {draw.random()}", task, str(small), "1.0", "0.00001", "0.0002"])
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.mark.slow
def test_the_page_from_top_to_bottom(
    main: Callable[..., Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path / "mine.csv")
    shown = [words[1:] for block in blocks(PAGE, "bash") for words in shell_words(block)]
    assert [words[0] for words in shown] == ["data", "baseline", "train", "compare", "evaluate", "route"]
    said = {}
    for command, *arguments in shown:
        said[command] = main(command, *arguments, *(SMALL if command in ("train", "baseline") else []))
        # A tiny base model need not name an LLM, which `route` says with status 1.
        assert said[command].status in ((0, 1) if command == "route" else (0,)), said[command]
    assert "122" in said["data"].output
    assert "best single" in said["train"].output
    assert "evaluation folder: outputs/first/evaluations/" in said["evaluate"].output
    routed = said["route"]
    assert routed.output.strip() in ROUTES if routed.status == 0 else "parse failure (" in routed.errors
    (code,) = blocks(PAGE, "python")
    exec(code, {})
    answer = capsys.readouterr().out.splitlines()[-1]
    assert answer in ROUTES | {"empty", "unknown", "ambiguous", "truncated"}
