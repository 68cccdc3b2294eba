"""The command line: what it prints and imports, and how it completes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from causal_lm_router import __version__
from causal_lm_router.commands.cli import COMMANDS, PLAIN_COMMANDS
from causal_lm_router.config.honoured import HONOURED
from causal_lm_router.config.keys import all_keys

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
QUERY_FLAGS = ["--shell-completion", "query=bash"]

# Runs several command lines in one process and prints a JSON list of [status, output, errors, heavy libraries so far].
DRIVER = """
import contextlib, io, json, os, sys
from causal_lm_router.commands.cli import main
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


def run_lines(*lines: tuple[str, list[str]], home: Path | None = None) -> list[Result]:
    """Run (line to complete, arguments) in one fresh process, in the home folder if one is given."""
    command = [sys.executable, "-c", DRIVER, json.dumps(lines)]
    environment = os.environ if home is None else os.environ | {"HOME": str(home)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=home, env=environment)
    return [Result(*result) for result in json.loads(done.stdout)]


ON_CONFIG = [command for command in COMMANDS if command not in PLAIN_COMMANDS]

# What is shown without running anything


@pytest.fixture(scope="module")
def shown() -> dict[str, Result]:
    """The results of command lines that only show something, all from one process."""
    typed = ["", "--help", "-h", "help", "--version", "train --version", "status --version", "teach", *EXPLAINED]
    typed += ["train --cfg job experiment=quickstart"]
    typed += [f"{command} --help" for command in COMMANDS] + [f"{command} --cfg job" for command in ON_CONFIG]
    return dict(zip(typed, run_lines(*(("", line.split()) for line in typed)), strict=True))


def test_showing_imports_nothing_heavy(shown: dict[str, Result]) -> None:
    assert {typed: result.heavy for typed, result in shown.items() if result.heavy} == {}


@pytest.mark.parametrize("typed", ["", "--help", "-h", "help"])
def test_usage_names_every_command(typed: str, shown: dict[str, Result]) -> None:
    result = shown[typed]
    assert (result.status, result.errors) == (0, "")
    assert result.output.startswith("usage: causal-lm-router <command>")
    assert [line.split()[0] for line in result.output.splitlines() if line.startswith("  ")] == list(COMMANDS)
    assert "--quiet" in result.output


def test_version(shown: dict[str, Result]) -> None:
    for typed in ("--version", "train --version", "status --version"):
        assert shown[typed][:3] == (0, f"causal-lm-router {__version__}\n", "")


def test_unknown_command(shown: dict[str, Result]) -> None:
    result = shown["teach"]
    assert (result.status, result.output) == (2, "")
    assert result.errors.splitlines()[0] == "error: unknown command 'teach'"
    assert "  train " in result.errors


@pytest.mark.parametrize("command", PLAIN_COMMANDS)
def test_help_of_a_command_on_folders(command: str, shown: dict[str, Result]) -> None:
    result = shown[f"{command} --help"]
    assert (result.status, result.errors) == (0, "")
    assert result.output.startswith(f"usage: causal-lm-router {command} [-h]")


@pytest.mark.parametrize("command", ON_CONFIG)
def test_help_of_a_command(command: str, shown: dict[str, Result]) -> None:
    result = shown[f"{command} --help"]
    assert (result.status, result.errors) == (0, "")
    assert result.output.startswith(f"usage: causal-lm-router {command} [option] [group=choice]")
    lines = result.output.splitlines()
    listed = [line.split(":")[0].strip() for line in lines if re.match(r"  [\w.]+: ", line)]
    if command in HONOURED:
        assert sorted(listed) == sorted(HONOURED[command]), "the one list of what it honours"
    else:
        assert "  base_model: gemma3_270m, llama2_7b, llama3_8b, qwen2_5_0_5b, smollm2_135m, tiny" in lines
    assert ("baseline" in listed) == (command == "baseline")


EXPLAINED = {
    "explain lora.lora_r": ["lora.lora_r: an integer; default 16", "Rank of the adapter matrices."],
    "explain data.tie_break": ["cheapest, best_on_train, first or random; default cheapest", "folder: evaluate."],
    "explain data.path": [
        "(of data=llmrouter, ",
        "(of data=own)",
        "File or folder to read, if the function wants one.",
    ],
    "explain baseline.k": ["(of baseline=knn_vote, knn_regression): an integer; default "],
    "explain lora": ["lora=none: No adapter: train all weights.", "lora.merge_lora: true or false; default true"],
    "explain experiment": ["experiment=quickstart: the whole path on a machine without GPU"],
}


@pytest.mark.parametrize("typed", EXPLAINED)
def test_explain(typed: str, shown: dict[str, Result]) -> None:
    result = shown[typed]
    assert (result.status, result.errors) == (0, "")
    assert [part for part in EXPLAINED[typed] if part not in result.output] == []


def test_every_key_is_explained() -> None:
    names = sorted({key.name.split(".")[0] for key in all_keys()})
    (result,) = run_lines(("", ["explain", *names]))
    assert result.status == 0
    assert [key.name for key in all_keys() if f"\n{key.name}" not in f"\n{result.output}"] == []
    assert [key.name for key in all_keys() if not key.doc] == []


def test_an_unknown_key_is_met_with_the_right_one() -> None:
    (result,) = run_lines(("", ["explain", "batch_size"]))
    assert (result.status, result.output) == (1, "")
    assert result.errors.endswith("did you mean trainer.batch_size or inference.batch_size?\n")


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    for arguments in ("train --help", "--help", "explain data", "train --cfg job experiment=quickstart"):
        line = f"{sys.executable} -m causal_lm_router.commands.cli {arguments} | head -1"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        assert (done.stdout.count("\n"), done.stderr) == (1, ""), arguments


@pytest.mark.parametrize("command", ON_CONFIG)
def test_config_of_a_command(command: str, shown: dict[str, Result]) -> None:
    result = shown[f"{command} --cfg job"]
    assert (result.status, result.errors) == (0, "")
    assert "base_model" in yaml.safe_load(result.output)


def test_config_of_an_experiment(shown: dict[str, Result]) -> None:
    config = yaml.safe_load(shown["train --cfg job experiment=quickstart"].output)
    assert (config["name"], config["base_model"]["origin"]) == ("quickstart", "packaged")


def test_installed_command_and_module_are_the_same(shown: dict[str, Result], tmp_path: Path) -> None:
    arguments = ["--cfg", "job", "experiment=quickstart"]
    for start in ([BIN / "causal-lm-router", "train"], [sys.executable, "-m", "causal_lm_router.commands.train"]):
        done = subprocess.run([*start, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == shown["train --cfg job experiment=quickstart"].output
    done = subprocess.run([BIN / "causal-lm-router", "teach"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


# Tab completion

COMPLETIONS = {
    "": " ".join(COMMANDS),
    "tr": "train",
    "r": "resume route report",
    "x": "",
    "train experiment=q": "experiment=quickstart",
    "train lora.lora_": "lora.lora_alpha= lora.lora_dropout= lora.lora_r=",
    "train lora=": "lora=all_linear lora=default lora=none",
    "  train lora=n": "lora=none",
    "train experiment=quickstart data.tie": "data.tie_break=",
    "evaluate run_dir=somewhere infer": "inference. inference=",
    "prepare base_model=t": "base_model=tiny",
    "teach lora=": "",
    "status outputs/": "",
    "train data.tie_break=": "data.tie_break=cheapest data.tie_break=best_on_train data.tie_break=first "
    "data.tie_break=random",
    "train data.tie_break=b": "data.tie_break=best_on_train",
    "train +lora.use_lora=": "+lora.use_lora=true +lora.use_lora=false",
    "evaluate run_dir=ru": "run_dir=runs/",
    "evaluate run_dir=runs/": "run_dir=runs/a/ run_dir=runs/b[1].jsonl",
    "train data=jsonl data.path=runs/b": "data.path=runs/b[1].jsonl",
    "train data=jsonl data.path=~/ru": "data.path=~/runs/",
    "route input=./runs/b": "input=./runs/b[1].jsonl",
    "explain lo": "lora",
    "explain lora.lora_": "lora.lora_r lora.lora_alpha lora.lora_dropout",
}


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """The answers to all of COMPLETIONS, from one process in a folder, which is the home folder too."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "runs" / "a").mkdir(parents=True)
    (folder / "runs" / "b[1].jsonl").touch()
    (folder / "runs" / ".hidden").touch()
    lines = [(f"causal-lm-router {typed}", QUERY_FLAGS) for typed in COMPLETIONS]
    return dict(zip(COMPLETIONS, run_lines(*lines, home=folder), strict=True))


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
