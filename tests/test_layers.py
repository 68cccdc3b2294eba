"""Rooms stand one above the other, files of a room form no circle, and heavy libraries come in late."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "causal_lm_router"
SOURCE = Path(__file__).resolve().parents[1] / "src" / PACKAGE
FILES = sorted(SOURCE.rglob("*.py"))

# From the ground up: a room imports from those before it alone.
ROOMS = (
    "routing",
    "files",
    "terminal",
    "config",
    "data",
    "prompting",
    "models",
    "training",
    "generation",
    "baselines",
    "evaluation",
    "runs",
    "sweeps",
    "commands",
    "__init__",
)
# Only these may know Hydra and OmegaConf: where a config is composed, and where Hydra's jobs are run.
HYDRA_USERS = {
    *(f"config.{name}" for name in ("compose", "composition_errors", "overrides", "plain", "resolve", "run_config")),
    "commands",
    "sweeps",
    "runs.router",
}
# No torch in these, nor in what they import.
LIGHT = ("routing", "files", "terminal", "config")
HEAVY = {"torch", "vllm", "wandb", "transformers", "pytorch_lightning", "peft", "datasets"}


def module_name(path: Path) -> str:
    """Dotted name of a file inside the package: `data.sources.jsonl`, `data.sources` for its `__init__.py`."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


NAMES = {module_name(path) for path in FILES}


def room(name: str) -> str:
    return name.split(".")[0]


@functools.cache
def imported(source: str) -> tuple[str, ...]:
    """Dotted names of everything that code imports, inside functions too, but not for type checking alone."""
    return tuple(_imported(source))


def _imported(source: str) -> Iterator[str]:
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(source: str) -> set[str]:
    """The package's own modules that code imports; names inside a module stand for the module."""
    found = set()
    for name in imported(source):
        parts = name.split(".")
        if parts[0] != PACKAGE:
            continue
        inside = parts[1:]
        while inside and ".".join(inside) not in NAMES:
            inside = inside[:-1]
        found.add(".".join(inside) or "__init__")
    return found


def upward_imports(sources: dict[str, str]) -> list[str]:
    """`module -> module` for every import from a room that stands higher."""
    return sorted(
        f"{name} -> {other}"
        for name, source in sources.items()
        for other in own_imports(source)
        if "__init__" not in (name, other) and ROOMS.index(room(other)) > ROOMS.index(room(name))
    )


def circles(sources: dict[str, str]) -> list[str]:
    """The modules that import one another in a circle."""
    graph = {name: own_imports(source) - {name} for name, source in sources.items()}
    # The package imports its public classes when they are asked for, so it is no start of a circle.
    graph["__init__"] = set()
    while leaves := {name for name, needs in graph.items() if not needs & graph.keys()}:
        graph = {name: needs for name, needs in graph.items() if name not in leaves}
    # What is left also holds modules that merely lead to a circle.
    while roots := graph.keys() - {need for needs in graph.values() for need in needs}:
        graph = {name: needs for name, needs in graph.items() if name not in roots}
    return sorted(graph)


def read_sources() -> dict[str, str]:
    return {module_name(path): path.read_text(encoding="utf-8") for path in FILES}


def test_the_package_holds_its_rooms_and_nothing_else() -> None:
    assert {room(name) for name in NAMES} == set(ROOMS)
    flat = {"__init__", "routing", "terminal"}
    assert {path.stem for path in SOURCE.glob("*.py")} == flat


def test_no_import_runs_upwards() -> None:
    assert upward_imports(read_sources()) == []


def test_no_files_form_a_circle() -> None:
    assert circles(read_sources()) == []


@pytest.mark.slow
def test_an_upward_import_and_a_circle_are_seen() -> None:
    sources = read_sources()
    below = {**sources, "routing": f"def f():\n    from {PACKAGE}.runs.fit import fit\n"}
    assert "routing -> runs.fit" in upward_imports(below)
    assert upward_imports({"config": f"from {PACKAGE} import data"}) == ["config -> data"]
    ring = {**sources, "data.split": sources["data.split"] + f"\nfrom {PACKAGE}.data import prepared\n"}
    assert set(circles(ring)) >= {"data.prepared", "data.split"}
    assert "files" not in circles(ring)


def test_only_composing_and_sweeping_know_hydra() -> None:
    users = {module_name(path) for path in FILES if roots(path) & {"hydra", "omegaconf"}}
    assert {name for name in users if not {name, room(name)} & HYDRA_USERS} == set()


def test_the_lowest_rooms_are_light() -> None:
    light = [path for path in FILES if room(module_name(path)) in LIGHT]
    assert {module_name(path): roots(path) & HEAVY for path in light if roots(path) & HEAVY} == {}


@pytest.mark.slow
def test_generation_libraries_stay_in_their_place() -> None:
    users = {name: {room(module_name(path)) for path in FILES if name in roots(path)} for name in ("vllm", "wandb")}
    assert users == {"vllm": {"generation"}, "wandb": {"runs"}}


def test_modules_are_nouns_or_stages() -> None:
    names = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    assert names & {"utils", "util", "common", "base", "helpers", "helper", "misc", "core", "registry"} == set()


@pytest.mark.slow
def test_importing_the_package_is_light() -> None:
    # Each line of the programme imports more than the one before and says what came along.
    modules = (PACKAGE, f"{PACKAGE}.commands.cli", f"{PACKAGE}.config", f"{PACKAGE}.prompting.parse")
    programme = "\n".join(
        f"import {module}; print(sorted(set(sys.modules) & {HEAVY | {'hydra', 'omegaconf', 'numpy'}}))"
        for module in (*modules, f"{PACKAGE}.prompting.prompt")
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{programme}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]"] * 5


def roots(path: Path) -> set[str]:
    """The packages that a file imports from."""
    return {name.split(".")[0] for name in imported(path.read_text(encoding="utf-8"))}
