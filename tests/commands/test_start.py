"""How commands start: without the libraries that take longer to import than a user likes to wait."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from causal_lm_router.commands.cli import COMMANDS

SLOW_TO_IMPORT = (
    "torch",
    "transformers",
    "vllm",
    "peft",
    "pytorch_lightning",
    "datasets",
    "pyarrow",
    "sklearn",
    "scipy.special",
    "scipy.stats",
    "scipy.optimize",
    "pandas",
    "matplotlib",
    "wandb",
    "ray",
    "optuna",
)
PROGRAMME = """
import contextlib, io, json, sys
from causal_lm_router.commands import cli
lines, slow_to_import = json.loads(sys.argv[1])
for line in lines:
    sys.argv = ["causal-lm-router", *line]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            cli.main()
        except SystemExit as end:
            assert not end.code, end.code
    print(json.dumps([line, bool(output.getvalue()), sorted(set(sys.modules) & set(slow_to_import))]))
"""


@pytest.mark.slow
def test_help_status_and_explain_import_nothing_slow(smoke_run: Path) -> None:
    lines = [["--help"], *([command, "--help"] for command in COMMANDS)]
    lines += [["explain", "lora"], ["status", str(smoke_run)], ["status", str(smoke_run), "--check"]]
    # One process after another would start as often as there are commands: what one imports, all after it have.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMME, json.dumps([lines, SLOW_TO_IMPORT])], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[line, True, []] for line in lines]
