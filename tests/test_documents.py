"""The documents show only what there is: commands that parse and compose, settings, choices, files, links."""

import ast
import dataclasses
import functools
import importlib
import json
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override

import causal_lm_router
from causal_lm_router import config as schema
from causal_lm_router.commands import cli
from causal_lm_router.config.compose import compose_config, conf_dir
from causal_lm_router.config.honoured import check_honoured
from causal_lm_router.config.keys import SCHEMAS
from causal_lm_router.config.overrides import allow_new_keys
from causal_lm_router.config.plain import dump_config
from causal_lm_router.config.resolve import resolve_config
from causal_lm_router.config.run_config import register_run
from tests.conftest import CHECKOUT
from tests.documents import PAGES, Command, blocks, commands, name_of, spans

COMMANDS = [command for page in PAGES for command in commands(page)]
GROUPS = {
    folder.name: {file.stem for file in folder.glob("*.yaml")}
    for folder in Path(conf_dir()).iterdir()
    if folder.is_dir() and folder.name != "hydra"  # fragments, no choices
}
EXPERIMENTS = CHECKOUT / "experiments"
ON_RUN = {"evaluate", "route", "resume", "merge", "push"}
SHOWING = {"--help", "--cfg", "job", "-m", "--multirun"}
"""Words of a command line that are no overrides."""
OWN_FOLDER = {"--config-dir", "hydra.searchpath=[mine]"}
"""Words of the commands that take the user's own YAML files."""
OTHER_PROGRAMMES = {"source", "eval"}
PRESENT = [page for page in PAGES if page.name not in ("LOG.md", "CHANGELOG.md")]
"""Pages that speak of what there is, not of what there was."""
by_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


class ParsedError(Exception):
    """Raised instead of running a command whose arguments were parsed."""

    def __init__(self, arguments: Any) -> None:
        self.arguments = arguments


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the config of a run, all that composing a command on a run needs."""
    folder = tmp_path_factory.mktemp("documents") / "run"
    folder.mkdir()
    config = compose_config(["experiment=quickstart", f"run_dir={folder}"])
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "command",
    [one for one in COMMANDS if one.words[0] == "causal-lm-router" and OWN_FOLDER.isdisjoint(one.words)],
    ids=str,
)
@pytest.mark.slow
def test_commands_parse_or_compose(command: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, arguments = command.words[1], list(command.words[2:])
    monkeypatch.setenv("HF_TOKEN", "which a page refers to")
    if name.startswith("-"):
        return
    assert name in cli.COMMANDS
    if name in cli.PLAIN_COMMANDS:
        parsed_arguments(f"causal_lm_router.commands.{name}", arguments or ["outputs"], monkeypatch)
        return
    overrides = [word for word in arguments if word not in SHOWING]
    if not overrides:
        return  # what a command shows of itself needs no data
    if name in ON_RUN:
        assert any(word.startswith("run_dir=") for word in overrides)
        overrides = [f"run_dir={run_dir}" if word.startswith("run_dir=") else word for word in overrides]
    compose_every_value(name, overrides)


def test_own_experiments_and_choices_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = CHECKOUT / "docs" / "configuration.md"
    named = [span for span in spans(page) if span.startswith("mine/")]
    for name, text in zip(named, blocks(page, "yaml"), strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    shown = [one.words[2:] for one in commands(page) if not OWN_FOLDER.isdisjoint(one.words)]
    # tests/config/test_own_configs.py runs commands with either way of naming the folder.
    assert {word for words in shown for word in words} == {*OWN_FOLDER, "mine", "experiment=short"}
    config = compose_config(["hydra.searchpath=[mine]", "experiment=short", "run_dir=x"])
    assert (config.name, config.data.source, config.trainer.num_epochs) == ("short", "jsonl", 1)


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.words[0] == "python"], ids=str)
@pytest.mark.slow
def test_scripts_take_their_arguments(command: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, arguments = command.words[1], list(command.words[2:])
    if script == "-m":
        assert importlib.util.find_spec(arguments[0]), arguments[0]
        return
    path = CHECKOUT / script
    assert path.is_relative_to(EXPERIMENTS)
    if "ArgumentParser" not in path.read_text(encoding="utf-8"):
        return
    monkeypatch.syspath_prepend(str(path.parent))
    found = parsed_arguments(path.stem, arguments, monkeypatch)
    overrides = getattr(found, "overrides", [])
    if getattr(found, "run_dir", None):
        compose_every_value("evaluate", [f"run_dir={run_dir}", *overrides])
    elif overrides:
        compose_every_value("train", overrides)


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.words[0] == "make"], ids=str)
def test_make_targets_and_variables_exist(command: Command) -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    for word in command.words[1:]:
        name, is_variable, _ = word.partition("=")
        assert re.search(rf"^{name} \?=" if is_variable else rf"^{name}:", makefile, flags=re.MULTILINE), word


def test_no_other_programmes_are_shown() -> None:
    known = {"causal-lm-router", "python", "make", *OTHER_PROGRAMMES}
    assert {one.words[0] for one in COMMANDS} - known == set()


@pytest.mark.parametrize("page", PRESENT, ids=name_of)
def test_groups_choices_and_keys_exist(page: Path) -> None:
    wrong = [word for span in spans(page) for word in span.split() if not is_setting(word)]
    assert wrong == []


@by_page
def test_files_exist(page: Path) -> None:
    roots = ("conf", "src", "docs", "tests", "experiments", "lock")
    named = [span for span in spans(page) if re.fullmatch(rf"({'|'.join(roots)})/[\w./*-]*", span)]
    assert [name for name in named if not list(CHECKOUT.glob(name.rstrip("/")))] == []


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        if anchor:
            assert anchor in headings(linked), target


@by_page
def test_examples_are_python_and_json(page: Path) -> None:
    for block in blocks(page, "json"):
        assert [json.loads(line) for line in block.splitlines()]
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "causal_lm_router":
                assert all(hasattr(causal_lm_router, alias.name) for alias in node.names)


def test_every_command_is_shown() -> None:
    assert {one.words[1] for one in COMMANDS if one.words[0] == "causal-lm-router"} >= set(cli.COMMANDS)


def test_config_table_lists_exactly_the_choices_of_every_group() -> None:
    page = (CHECKOUT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ((?:`\w+` ?)+) \|", page, flags=re.MULTILINE))
    assert {name: set(re.findall(r"\w+", cells)) for name, cells in rows.items()} == {
        name: choices for name, choices in GROUPS.items() if choices
    }


def test_table_of_defaults_tells_the_composed_defaults() -> None:
    page = (CHECKOUT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \w+ \| `([\w.]+)` \| `?([^`|]+?)`? \|$", page, flags=re.MULTILINE)
    config = compose_config(["data=simulated", "run_dir=x"])
    assert len(rows) == 13
    for key, shown in rows:
        assert shown == format_value(functools.reduce(getattr, key.split("."), config)), key


def test_tables_of_methods_list_every_choice() -> None:
    page = (CHECKOUT / "docs" / "methods.md").read_text(encoding="utf-8")
    for group in ("target", "objective", "decoding"):
        assert set(re.findall(rf"^\| `{group}=(\w+)`", page, flags=re.MULTILINE)) == GROUPS[group]


def test_table_of_baselines_lists_every_choice() -> None:
    page = (CHECKOUT / "docs" / "baselines.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, flags=re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"\w+", row)} == GROUPS["baseline"]


def parsed_arguments(module: str, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The arguments as the parser of a module's `main` takes them, before it does anything with them."""
    import argparse

    real = argparse.ArgumentParser.parse_known_args

    def parse(parser: argparse.ArgumentParser, *given: Any, **options: Any) -> Any:
        namespace, rest = real(parser, *given, **options)
        raise ParsedError(argparse.Namespace(**{"overrides": rest, **vars(namespace)}))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_intermixed_args", lambda parser: parser.parse_known_args())
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(ParsedError) as parsed:
        importlib.import_module(module).main()
    return parsed.value.arguments


def compose_every_value(command: str, overrides: Sequence[str]) -> None:
    """Compose what a command line makes, for a sweep so often that each of its values has its turn."""
    # What a preset sweeps needs one value to compose; tests/config/test_conf.py composes the others.
    parse = OverridesParser.create().parse_overrides
    swept = parse([f"{key}={values}" for one in overrides for key, values in preset_params(one).items()])
    typed = parse(list(overrides))
    values = [
        list(values_of(one))[:1] for one in swept if one.get_key_element() not in map(Override.get_key_element, typed)
    ]
    values += [list(values_of(one)) for one in typed]
    for turn in range(max(map(len, values), default=1)):
        compose_command(command, tuple(each[turn % len(each)] for each in values))


def preset_params(override: str) -> dict[str, Any]:
    """What the preset of an override `sweep=<preset>` sweeps."""
    group, _, choice = override.partition("=")
    if group != "sweep":
        return {}
    preset = yaml.safe_load((Path(conf_dir()) / "sweep" / f"{choice}.yaml").read_text(encoding="utf-8"))
    params: dict[str, Any] = preset.get("hydra", {}).get("sweeper", {}).get("params", {})
    return params


def values_of(override: Override) -> Iterator[str]:
    sweep = override.value()
    if isinstance(sweep, IntervalSweep):
        yield from (f"{override.get_key_element()}={end}" for end in (sweep.start, sweep.end))
    elif isinstance(sweep, ChoiceSweep):
        named = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        # Each choice of a group is a file of its own; of numbers the first and the last will do.
        yield from named if override.get_key_element() in GROUPS else (named[0], named[-1])
    else:
        assert override.input_line is not None
        yield override.input_line


@functools.cache
def compose_command(command: str, overrides: tuple[str, ...]) -> None:
    """Compose as the command does, and check the result by the command's schema."""
    if command in ON_RUN:
        check_honoured(command, overrides)
        register_run(command, list(overrides), required=True, takes_baselines=command == "resume")
    if command not in {*ON_RUN, "prepare"}:
        compose_config([*overrides, "run_dir=x"], command)
        return
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=conf_dir()):
        composed = compose(config_name=command, overrides=allow_new_keys(overrides))
    resolve_config(composed, SCHEMAS.get(f"{command}_schema", schema.TrainConfig))


def is_setting(word: str) -> bool:
    """False for a word that looks like a group, a choice or a key, and is none."""
    word = word.strip("'\"(),;")
    key, is_override, value = word.lstrip("+~").partition("=")
    if is_override and key in GROUPS and GROUPS[key]:
        return all(choice in GROUPS[key] | {"...", ""} for choice in value.split(","))
    if not re.fullmatch(r"[a-z_]+(\.[\w-]+)+", key) or re.search(r"\.(json|yaml|csv|md|py|png|jsonl|log)$", key):
        return True
    first = key.split(".")[0]
    return first not in config_keys() or any(has_key(kind, key.split(".")) for kind in SCHEMAS.values())


@functools.cache
def config_keys() -> set[str]:
    return {field.name for kind in SCHEMAS.values() for field in dataclasses.fields(kind)}


def has_key(kind: Any, parts: Sequence[str]) -> bool:
    """Whether the dotted key is one of a schema, or of a schema derived from it."""
    if not parts:
        return True
    if not dataclasses.is_dataclass(kind):
        # Below a dictionary every key may stand.
        return typing.get_origin(kind) is dict
    kinds = [kind, *derived(kind)]
    inside = [typing.get_type_hints(one)[parts[0]] for one in kinds if parts[0] in typing.get_type_hints(one)]
    return any(has_key(one, parts[1:]) for one in inside)


def derived(kind: type) -> Iterator[type]:
    for one in kind.__subclasses__():
        yield one
        yield from derived(one)


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def format_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:f}".rstrip("0") if isinstance(value, float) else str(value)
