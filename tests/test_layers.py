"""Imports go one way, heavy libraries come in late, and modules are named after what they hold."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "causal_lm_router"
SOURCE = Path(__file__).resolve().parents[1] / "src" / PACKAGE
FILES = sorted(SOURCE.rglob("*.py"))

# A module may import from its own layer and from those above it in this list.
LAYERS = [
    {"routing", "atomic"},
    {"prompt", "shots", "parse", "targets", "intervals", "routing_report", "decoding_report", "metrics", "measures"},
    {"config"},
    {
        "sources",
        "split",
        "leakage",
        "labels",
        "prepared",
        "trie",
        "frozen_layers",
        "tree",
        "objective",
        "extended_model",
        "renaming",
        "shrinkage",
        "encoding",
        "base_model",
        "tiny_model",
        "process_state",
        "baselines",
    },
    {"batches", "module", "generators", "decoding"},
    {
        "evaluation",
        "callback",
        "checkpoint",
        "tracking",
        "report_table",
        "figures",
        "routing_figures",
        "data_description",
    },
    {
        "workbench",
        "session",
        "run_folder",
        "fit",
        "training",
        "baseline_run",
        "compose",
        "command",
        "router",
        "llmrouter_yaml",
    }
    | {"sweep_folder", "sweeps", "sweep_report", "run_comparison", "sweepers"},
    {
        "train",
        "baseline",
        "resume",
        "evaluate",
        "route",
        "merge",
        "data",
        "prepare",
        "status",
        "report",
        "compare",
        "cli",
        "__init__",
    },
]
# Only these may know Hydra and OmegaConf.
COMMAND_LAYER = {"compose", "command", "router", "sweepers"}
# No torch in these, nor in what they import.
LIGHT_LAYERS = LAYERS[:3]
HEAVY = {"torch", "vllm", "wandb", "transformers", "pytorch_lightning", "peft", "datasets"}


def part(path: Path) -> str:
    """The module or folder directly under the package that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports, inside functions too, but not for type checking alone."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def roots(path: Path) -> set[str]:
    """The packages that a file imports from."""
    return {name.split(".")[0] for name in imported(path)}


def own_imports(path: Path) -> set[str]:
    """The package's own parts that a file imports."""
    names = [name.split(".") for name in imported(path) if name.split(".")[0] == PACKAGE]
    return {name[1] if len(name) > 1 and not name[1].startswith("__version") else "__init__" for name in names}


def layer(name: str) -> int:
    return next(index for index, names in enumerate(LAYERS) if name in names)


def test_every_module_has_its_layer() -> None:
    listed = [name for names in LAYERS for name in names]
    assert len(listed) == len(set(listed))
    assert set(listed) == {part(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    upward = {name for name in own_imports(path) if layer(name) > layer(part(path))}
    assert upward == set()


def test_own_imports_are_seen() -> None:
    assert {"command", "config", "training"} <= own_imports(SOURCE / "train.py"), "inside functions too"
    assert own_imports(SOURCE / "__init__.py") == {"router"}
    assert own_imports(SOURCE / "cli.py") == {"__init__"}
    assert own_imports(SOURCE / "compose.py") == {"config"}


def test_imports_within_a_layer_have_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        graph.setdefault(part(path), set()).update(own_imports(path) - {part(path)})
    # The package imports its public classes when they are asked for, so it is no start of a circle.
    graph["__init__"] = set()
    while leaves := {name for name, needs in graph.items() if not needs & graph.keys()}:
        graph = {name: needs for name, needs in graph.items() if name not in leaves}
    assert graph == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_command_layer_knows_hydra(path: Path) -> None:
    if part(path) not in COMMAND_LAYER:
        assert roots(path) & {"hydra", "omegaconf"} == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_lowest_layers_are_light(path: Path) -> None:
    if any(part(path) in names for names in LIGHT_LAYERS):
        assert roots(path) & HEAVY == set()


def test_generation_libraries_stay_in_their_place() -> None:
    users = {name: {part(path) for path in FILES if name in roots(path)} for name in ("vllm", "wandb")}
    assert users == {"vllm": {"generators"}, "wandb": {"tracking"}}


def test_modules_are_nouns_or_stages() -> None:
    names = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    assert names & {"utils", "util", "common", "base", "helpers", "helper", "misc", "core", "registry"} == set()


def test_importing_the_package_is_light() -> None:
    # Each line of the programme imports more than the one before and says what came along.
    programme = "\n".join(
        f"import {module}; print(sorted(set(sys.modules) & {HEAVY | {'hydra', 'omegaconf', 'numpy'}}))"
        for module in (PACKAGE, f"{PACKAGE}.cli", f"{PACKAGE}.config", f"{PACKAGE}.parse", f"{PACKAGE}.prompt")
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{programme}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]"] * 5
