"""The README shows only what there is: commands, config groups, presets, files."""

import re
from pathlib import Path

from causal_lm_router.commands.cli import COMMANDS
from causal_lm_router.config.compose import compose_config, conf_dir
from tests.conftest import CHECKOUT

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


def test_every_command_shown_exists_and_every_command_is_shown():
    shown = set(re.findall(r"causal-lm-router ([a-z]+)\b", README))
    assert shown == set(COMMANDS)


def test_make_targets_shown_exist():
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)", README)) <= targets


def test_config_table_lists_exactly_the_choices_of_every_group():
    rows = dict(re.findall(r"^\| `(\w+)` \| ((?:`\w+` ?)+) \|", README, flags=re.MULTILINE))
    groups = {folder.name: {file.stem for file in folder.glob("*.yaml")} for folder in Path(conf_dir()).iterdir()}
    expected = {name: choices for name, choices in groups.items() if choices}
    assert {name: set(re.findall(r"\w+", cells)) for name, cells in rows.items() if name in expected} == expected


def test_default_table_tells_the_composed_defaults():
    config = compose_config(["run_dir=x"])
    rows = re.findall(r"^\| \w+ \| `([\w.]+)` \| `?([^`|]+?)`? \|$", README, flags=re.MULTILINE)
    assert len(rows) == 13
    for key, shown in rows:
        value = config
        for part in key.split("."):
            value = getattr(value, part)
        assert shown == format_value(value), key


def format_value(value):
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:f}".rstrip("0") if isinstance(value, float) else str(value)


def test_experiments_shown_compose():
    for name in set(re.findall(r"experiment=(\w+)", README)):
        compose_config([f"experiment={name}", "run_dir=x"])


def test_layout_names_every_file_of_the_package():
    block = README.split("## Layout", 1)[1]
    source = CHECKOUT / "src" / "causal_lm_router"
    files = {path.name for path in source.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in source.glob("*/__init__.py")}
    assert {name for name in files | folders if name not in block} == set()
    shown = set(re.findall(r"\b(\w+\.py)\b", block))
    assert shown <= files
