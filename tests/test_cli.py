"""The commands as they are typed: what they print and import, how they complete, and how they refuse bad input."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import yaml

from causal_lm_router import __version__, cli
from causal_lm_router.cli import COMMANDS
from causal_lm_router.compose import compose_config, dump_config

BIN = Path(sys.executable).parent
QUERY_FLAGS = ["--shell-completion", "query=bash"]

# Runs several command lines in one process and prints a JSON list of [status, output, errors, heavy libraries so far].
DRIVER = """
import contextlib, io, json, os, sys
from causal_lm_router.cli import main
heavy = {"torch", "vllm", "transformers", "pytorch_lightning", "peft", "datasets", "wandb"}
results = []
for line, arguments in json.loads(sys.argv[1]):
    os.environ["COMP_LINE"], os.environ["COMP_POINT"] = line, str(len(line))
    output, errors, status = io.StringIO(), io.StringIO(), 0
    sys.argv = ["/somewhere/bin/causal-lm-router", *arguments]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as leaving:
            status = leaving.code or 0
    results.append([status, output.getvalue(), errors.getvalue(), sorted(heavy & set(sys.modules))])
print(json.dumps(results))
"""


class Result(NamedTuple):
    """What a command line did."""

    status: int
    output: str
    errors: str
    heavy: list[str]


def run_lines(*lines: tuple[str, list[str]]) -> list[Result]:
    """Run (line to complete, arguments) in one fresh process."""
    command = [sys.executable, "-c", DRIVER, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [Result(*result) for result in json.loads(done.stdout)]


@pytest.fixture
def main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Result]]:
    """Function that runs a command line in this process, in an empty folder."""
    root = logging.getLogger()
    kept, level = list(root.handlers), root.level
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.chdir(tmp_path)

    def run_main(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["causal-lm-router", *arguments])
        status = 0
        try:
            cli.main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        return Result(status, *capsys.readouterr(), [])

    yield run_main
    # Hydra sets up logging for its job: to this test's standard output and to a file in its folder.
    for handler in [handler for handler in root.handlers if handler not in kept]:
        handler.close()
    root.handlers[:] = kept
    root.setLevel(level)


@pytest.fixture
def refuses(main: Callable[..., Result], tmp_path: Path) -> Callable[..., str]:
    """Function that runs a command line which must fail in one line and leave no trace, and returns that line."""

    def check(*arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        result = main(*arguments)
        assert (result.status, result.output) == (1, "")
        assert result.errors.startswith("error: ")
        assert result.errors.count("\n") == 1, result.errors
        assert sorted(tmp_path.rglob("*")) == before
        return result.errors.removeprefix("error: ").rstrip("\n")

    return check


# What is shown without running anything


@pytest.fixture(scope="module")
def shown() -> dict[str, Result]:
    """The results of command lines that only show something, all from one process."""
    typed = ["", "--help", "-h", "help", "--version", "teach", "train --cfg job experiment=quickstart"]
    typed += [f"{command} --help" for command in COMMANDS] + [f"{command} --cfg job" for command in COMMANDS]
    return dict(zip(typed, run_lines(*(("", line.split()) for line in typed)), strict=True))


def test_showing_imports_nothing_heavy(shown: dict[str, Result]) -> None:
    assert {typed: result.heavy for typed, result in shown.items() if result.heavy} == {}


@pytest.mark.parametrize("typed", ["", "--help", "-h", "help"])
def test_usage_names_every_command(typed: str, shown: dict[str, Result]) -> None:
    result = shown[typed]
    assert (result.status, result.errors) == (0, "")
    assert result.output.startswith("usage: causal-lm-router <command>")
    assert [line.split()[0] for line in result.output.splitlines() if line.startswith("  ")] == list(COMMANDS)


def test_version(shown: dict[str, Result]) -> None:
    assert shown["--version"][:3] == (0, f"causal-lm-router {__version__}\n", "")


def test_unknown_command(shown: dict[str, Result]) -> None:
    result = shown["teach"]
    assert (result.status, result.output) == (2, "")
    assert result.errors.splitlines()[0] == "error: unknown command 'teach'"
    assert "  train " in result.errors


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command: str, shown: dict[str, Result]) -> None:
    result = shown[f"{command} --help"]
    assert (result.status, result.errors) == (0, "")
    assert result.output.startswith(f"{command} is powered by Hydra.")
    assert "base_model: gemma3_270m, llama2_7b, qwen2_5_0_5b, smollm2_135m, tiny\n" in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_config_of_a_command(command: str, shown: dict[str, Result]) -> None:
    result = shown[f"{command} --cfg job"]
    assert (result.status, result.errors) == (0, "")
    assert "base_model" in yaml.safe_load(result.output)


def test_config_of_an_experiment(shown: dict[str, Result]) -> None:
    config = yaml.safe_load(shown["train --cfg job experiment=quickstart"].output)
    assert (config["name"], config["base_model"]["origin"]) == ("quickstart", "packaged")


def test_installed_command_and_module_are_the_same(shown: dict[str, Result], tmp_path: Path) -> None:
    arguments = ["--cfg", "job", "experiment=quickstart"]
    for start in ([BIN / "causal-lm-router", "train"], [sys.executable, "-m", "causal_lm_router.train"]):
        done = subprocess.run([*start, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == shown["train --cfg job experiment=quickstart"].output
    done = subprocess.run([BIN / "causal-lm-router", "teach"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


# Tab completion

COMPLETIONS = {
    "": " ".join(COMMANDS),
    "tr": "train",
    "r": "resume route",
    "x": "",
    "train experiment=q": "experiment=quickstart",
    "train lora.lora_": "lora.lora_alpha= lora.lora_dropout= lora.lora_r=",
    "train lora=": "lora=all_linear lora=default lora=none",
    "  train lora=n": "lora=none",
    "train experiment=quickstart data.tie": "data.tie_break=",
    "evaluate run_dir=somewhere infer": "inference. inference=",
    "prepare base_model=t": "base_model=tiny",
    "teach lora=": "",
}


@pytest.fixture(scope="module")
def completed() -> dict[str, Result]:
    """The answers to all of COMPLETIONS, from one process."""
    lines = [(f"causal-lm-router {typed}", QUERY_FLAGS) for typed in COMPLETIONS]
    return dict(zip(COMPLETIONS, run_lines(*lines), strict=True))


@pytest.mark.parametrize("typed", COMPLETIONS)
def test_completion(typed: str, completed: dict[str, Result]) -> None:
    result = completed[typed]
    assert (result.status, result.errors, result.heavy) == (0, "", [])
    assert result.output.strip() == COMPLETIONS[typed]


def test_completion_in_bash() -> None:
    script = """
        eval "$(causal-lm-router --shell-completion install=bash)"
        complete_line() { COMP_LINE=$1 COMP_POINT=${#1} COMP_CWORD=$2; hydra_bash_completion; echo "${COMPREPLY[@]}"; }
        complete -p causal-lm-router
        complete_line "causal-lm-router ev" 1
        complete_line "causal-lm-router train experiment=q" 2
    """
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    installed, *answers = done.stdout.splitlines()
    assert installed.endswith("-F hydra_bash_completion causal-lm-router")
    assert answers == ["evaluate", "experiment=quickstart"]
    assert done.stderr == ""


# Commands on a run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The folder of a run that has not been trained."""
    folder = tmp_path / "a, run (1)"
    folder.mkdir()
    config = dump_config(compose_config(["debug=smoke", "run_dir=elsewhere"]))
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    return folder


def stub(monkeypatch: pytest.MonkeyPatch, module: str, **functions: Any) -> None:
    """Put functions in place of one of our modules, so that nothing heavy is imported and no work is done."""
    monkeypatch.setitem(sys.modules, f"causal_lm_router.{module}", SimpleNamespace(**functions))


ON_RUN = {"evaluate": [], "route": ["query=x"], "resume": [], "merge": []}

FOREIGN = {
    "another program's": ("epochs: 3\n", "Key 'epochs' not in 'TrainConfig'"),
    "a part of ours": ("name: x\nrun_dir: y\n", "missing mandatory value: seed"),
    "a list": ("- 1\n", "it holds no keys"),
    "empty": ("", "it holds no keys"),
    "not YAML": ("a: [", "expected the node content"),
}


@pytest.mark.parametrize("command", ON_RUN)
def test_run_dir_is_needed(command: str, refuses: Callable[..., str]) -> None:
    assert refuses(command, *ON_RUN[command]) == "run_dir: missing; needed is run_dir=<folder of a run>"


@pytest.mark.parametrize("command", ON_RUN)
def test_run_dir_without_a_run(command: str, refuses: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("nowhere", "empty"):
        line = refuses(command, f"run_dir={folder}", *ON_RUN[command])
        assert line == f"run_dir={folder}: no config.yaml there, this is not a run folder"


@pytest.mark.parametrize("command", ON_RUN)
@pytest.mark.parametrize(("text", "reason"), FOREIGN.values(), ids=FOREIGN)
def test_run_dir_of_something_else(
    command: str, text: str, reason: str, refuses: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.yaml").write_text(text)
    line = refuses(command, "run_dir=foreign", *ON_RUN[command])
    assert line.startswith("foreign/config.yaml: this is not the config of a run: ")
    assert reason in line


def test_failed_evaluation_leaves_no_folder(
    refuses: Callable[..., str], run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def evaluate_run(config: Any) -> None:
        seen.append((config.run_dir, Path(config.output_dir).is_dir(), config.inference.backend))
        raise FileNotFoundError("nothing trained")

    stub(monkeypatch, "training", evaluate_run=evaluate_run)
    assert refuses("evaluate", f"run_dir='{run_dir}'", "inference=vllm") == "nothing trained"
    assert seen == [(str(run_dir), True, "vllm")], "the job ran, with Hydra's folder, and the run's own config changed"
    assert "not in 'EvaluateConfig'" in refuses("evaluate", f"run_dir='{run_dir}'", "+typo=1")


def test_what_a_failed_job_has_written_stays(
    main: Callable[..., Result], run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate_run(config: Any) -> None:
        (Path(config.output_dir) / "outcomes.jsonl").write_text("{}")
        raise ValueError("late")

    stub(monkeypatch, "training", evaluate_run=evaluate_run)
    assert main("evaluate", f"run_dir='{run_dir}'").errors == "error: late\n"
    assert len(list(run_dir.glob("evaluations/*/outcomes.jsonl"))) == 1


@pytest.mark.parametrize("command", ["resume", "merge"])
def test_a_moved_run_is_found_where_it_is(
    command: str, main: Callable[..., Result], run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, "training", **{f"{command}_run": lambda config: print(config.name, config.run_dir)})
    assert main(command, f"run_dir='{run_dir}'")[:3] == (0, f"smoke {run_dir}\n", "")


QUERIES = [
    "Hello, world",
    "It's f(x) = {a: 1}!",
    "x ${name} \\${y} \\",
    "  '  ",
    '"Yes" or "no"',
    "17.50",
    "null",
    "é\n#",
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_taken_as_it_is_typed(
    query: str, main: Callable[..., Result], run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FakeRouter:
        """Routes every query to itself."""

        def __enter__(self) -> "FakeRouter":
            return self

        def __exit__(self, *exception: object) -> None: ...

        def route_batch(self, rows: list[dict[str, str]]) -> list[dict[str, Any]]:
            return [{"model_name": json.dumps(row["query"])} for row in rows]

    stub(monkeypatch, "router", CausalLMRouter=SimpleNamespace(from_run=lambda run_dir, config: FakeRouter()))
    assert main("route", f"run_dir='{run_dir}'", f"query={query}")[:3] == (0, json.dumps(query) + "\n", "")


@pytest.mark.parametrize("arguments", [[], ["query=x", "input=y"]])
def test_route_needs_one_source_of_queries(arguments: list[str], refuses: Callable[..., str], run_dir: Path) -> None:
    line = refuses("route", f"run_dir='{run_dir}'", *arguments)
    assert line.startswith("query, input=")
    assert line.endswith("allowed is exactly one of query=... and input=...")


# Bad configs and bad data


@pytest.mark.parametrize("command", ["train", "data"])
@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("+typo=1", "key: typo"),
        ("lora.lora_rank=1", "key: lora.lora_rank"),
        ("lora.lora_r=0", "lora.lora_r=0: allowed is an integer of at least 1"),
        ("lora=lorra", "'lora/lorra'"),
        ("lora=null", "must be a string"),
        ("lora", "'lora'"),
    ],
)
def test_bad_config(command: str, override: str, part: str, refuses: Callable[..., str]) -> None:
    assert part in refuses(command, override)


def test_traceback_on_demand(main: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match=r"lora\.lora_r=0"):
        main("data", "lora.lora_r=0")


def test_further_processes_start_as_the_commands_module(main: Callable[..., Result]) -> None:
    main("data", "--help")
    spec = sys.modules["__main__"].__spec__
    assert spec is not None
    assert spec.name == "causal_lm_router.data"


GOOD = '{"query": "good", "scores": {"a": 1, "b": 0}}\n'
SCORES = '"scores": {"a": 1, "b": 0}'

BAD_DATA = {
    "broken JSON": (GOOD + '{"query": "x", "scores" {}}\n', "data.jsonl:2: broken JSON: Expecting ':' delimiter"),
    "NaN score": (GOOD + '{"query": "x", "scores": {"a": NaN, "b": 0}}\n', "data.jsonl:2: NaN is not a JSON number"),
    "unknown candidate": (GOOD + '{"query": "x", "scores": {"a": 1, "c": 0}}\n', "data.jsonl:2: unknown candidate 'c'"),
    "empty query": (GOOD + f'{{"query": " ", {SCORES}}}\n', "data.jsonl:2: query is empty"),
    "1 MB query": (
        GOOD + f'{{"query": "{"x" * 1_000_000}", {SCORES}}}\n',
        "data.jsonl:2: query has 1,000,000 characters, data.max_query_chars allows 100,000",
    ),
    "key twice": (GOOD + f'{{"query": "x", "query": "y", {SCORES}}}\n', "data.jsonl:2: key 'query' stands twice"),
    "wrong type": (GOOD + '{"query": "x", "scores": "high"}\n', "data.jsonl:2: 'scores' is 'high'"),
    "score out of range": (
        GOOD + '{"query": "x", "scores": {"a": 1, "b": 9}}\n',
        "data.jsonl:2: candidate 'b': score 9 is not a number in 0..1",
    ),
    "one candidate": ('{"query": "x", "scores": {"a": 1}}\n', "routing needs at least 2"),
    "same names": (
        '{"query": "x", "scores": {"caf\\u00e9": 1, "cafe\\u0301": 0}}\n',
        "pool: candidate names 'café' and 'cafe\u0301' are the same name",
    ),
    "line break in a name": ('{"query": "x", "scores": {"a\\nb": 1, "b": 0}}\n', "holds a line break"),
    "empty file": ("", "data.jsonl"),
}


@pytest.mark.parametrize(("text", "part"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data(text: str, part: str, refuses: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(text, encoding="utf-8")
    line = refuses("data", "data=jsonl", "data.path=data.jsonl")
    assert part in line
    assert "data.jsonl" in line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["data=jsonl", "data.path=nowhere.jsonl"], "data.path='nowhere.jsonl': no such file or folder"),
        (["data=jsonl"], "data.path=None: needed is"),
        (["data=routellm", "data.path=."], "data.path='.': "),
    ],
)
def test_missing_data(arguments: list[str], line: str, refuses: Callable[..., str]) -> None:
    assert refuses("data", *arguments).startswith(line)
