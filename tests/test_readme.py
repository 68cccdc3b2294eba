"""The README: short, and with the rooms that are on disk."""

import re

from causal_lm_router.evaluation.formatting import REFERENCE_NAMES, explain_reference
from tests.conftest import CHECKOUT
from tests.documents import PAGES, name_of
from tests.test_layers import ROOMS, SOURCE

PAGE = CHECKOUT / "README.md"
LINES = PAGE.read_text(encoding="utf-8").splitlines()
MAX_LINES = 180


def test_it_is_short() -> None:
    assert len(LINES) <= MAX_LINES


def test_the_rooms_are_those_on_disk_from_the_ground_up() -> None:
    start = LINES.index("src/causal_lm_router/")
    block = LINES[start + 1 : LINES.index("```", start)]
    shown = [match[1] for line in block if (match := re.match(r"  (\w+(?:/|\.py)) ", line))]
    rooms = [f"{room}/" if (SOURCE / room).is_dir() else f"{room}.py" for room in ROOMS if room != "__init__"]
    assert shown == rooms


def test_the_demos_table_has_the_words_that_are_printed() -> None:
    start = LINES.index("525 queries, 6 LLMs to choose from")
    column = [line.split("│")[1].strip() for line in LINES[start : LINES.index("```", start)] if line.startswith("│")]
    references = [
        word for name, shown in REFERENCE_NAMES.items() for word in (shown, explain_reference(name, "borealis-large"))
    ]
    # Long words go on in the next line.
    assert " ".join(" ".join(column).split()) == " ".join(["the router", *references])


def test_every_page_of_the_documentation_has_its_link() -> None:
    index = (CHECKOUT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (CHECKOUT / "docs").glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"^\| \[(\w+\.md)\]", index, flags=re.MULTILINE))


def test_every_page_keeps_to_plain_words() -> None:
    pages = [page for page in PAGES if page.name not in ("LOG.md", "CHANGELOG.md")]
    dialect = ("moonshot", "by lot", "whatever it is", "/work/", "last session")
    text = {name_of(page): page.read_text(encoding="utf-8").lower() for page in pages}
    assert [(name, word) for name in text for word in dialect if word in text[name]] == []


def test_the_results_are_those_of_the_experiments() -> None:
    measured = (CHECKOUT / "experiments" / "MEASUREMENTS.md").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(LINES) if line.startswith("| router |"))
    rows = [line.strip("| ").split(" | ")[1:] for line in LINES[start + 2 :]]
    rows = rows[: rows.index([])]
    assert len(rows) == 8
    for cells in rows:
        assert any(all(cell in line for cell in cells) for line in measured), cells
