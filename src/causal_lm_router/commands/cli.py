"""`causal-lm-router <command> [overrides]`: hands the rest of the command line to the command's own main."""

import importlib
import os
import sys

import causal_lm_router
from causal_lm_router.commands.errors import end_quietly
from causal_lm_router.terminal import QUIET

PROGRAM = "causal-lm-router"
COMPLETION_FLAGS = ("-sc", "--shell-completion")
COMMANDS = {
    "train": "finetune a base model on routing data: experiment=quickstart, or data=... [group=choice] ...",
    "baseline": "fit a router to compare with: baseline=knn_regression|svm|zero_shot|... data=...",
    "resume": "continue a run that was interrupted: run_dir=...",
    "evaluate": "evaluate a run again: run_dir=... [inference.backend=transformers] [parsing=lenient] ...",
    "route": 'route queries with a run: run_dir=... query="...", input=file [output=file], or typed ones',
    "merge": "write the merged checkpoint of a run: run_dir=...",
    "push": "upload a run's adapter or merged checkpoint to the hub: run_dir=... repo=owner/name [dry_run=true]",
    "data": "show what a data config holds: data=... [data.path=...]: sizes, tasks, scores, leakage",
    "status": "list runs, or the jobs of a sweep: outputs, or outputs/sweeps/<name>",
    "report": "tables, tests, figures and a page over a sweep or any folder of runs: outputs/sweeps/<name>",
    "compare": "compare runs on the same queries, pair by pair: outputs/a outputs/b ...",
    "prepare": "fetch a base model, or turn a packaged one into a checkpoint in the cache folder",
    "explain": "say what a group or a key is for: lora, data.tie_break, ...",
}
# These take folders or names, not overrides.
PLAIN_COMMANDS = ("status", "report", "compare", "explain")
QUIET_FLAGS = ("-q", "--quiet")


def main() -> None:
    """Run the command named by the first argument; without one, list the commands."""
    try:
        _run(sys.argv[1:])
        # Here and not when the interpreter ends, where the error could not be caught.
        sys.stdout.flush()
    except BrokenPipeError:
        end_quietly()


def _run(words: list[str]) -> None:
    arguments = [word for word in words if word not in QUIET_FLAGS]
    if arguments != words:
        os.environ[QUIET] = "1"
    if any(argument in COMPLETION_FLAGS for argument in arguments):
        _complete(arguments)
    elif not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
    elif "--version" in arguments:
        print(f"{PROGRAM} {causal_lm_router.__version__}")
    elif arguments[0] in COMMANDS:
        _run_command(arguments[0], f"{PROGRAM} {arguments[0]}", arguments[1:])
    else:
        print(f"error: unknown command {arguments[0]!r}\n\n{_usage()}", file=sys.stderr)
        raise SystemExit(2)


def _run_command(command: str, program: str, arguments: list[str]) -> None:
    # Hydra reads the command line, and calls the program in its help as the first word says.
    sys.argv = [program, *arguments]
    module = importlib.import_module(f"causal_lm_router.commands.{command}")
    # Lightning starts the further processes of a distributed run as `python -m <module of __main__> <arguments>`.
    sys.modules["__main__"].__spec__ = module.__spec__
    module.main()


def _usage() -> str:
    lines = [f"usage: {PROGRAM} <command> [group=choice] [group.key=value] ...", "", "commands:"]
    lines += [f"  {name:<10}{text}" for name, text in COMMANDS.items()]
    lines += ["", f"{PROGRAM} <command> --help lists what it takes, --cfg job prints the composed config."]
    lines += ["--quiet shows warnings, errors and results alone; --version prints the version."]
    lines += [f'Tab completion in bash: eval "$({PROGRAM} --shell-completion install=bash)"']
    return "\n".join(lines)


def _complete(arguments: list[str]) -> None:
    """Complete a command at the first word, else leave it to Hydra, which also prints the shell function to install.

    Hydra completes `program overrides`; the command is taken out of the line that the shell hands over.
    """
    from causal_lm_router.commands.completion import complete_explained, complete_value

    line = os.environ.get("COMP_LINE", "")
    _, _, words = line[: int(os.environ.get("COMP_POINT") or len(line))].partition(" ")
    command, space, overrides = words.lstrip().partition(" ")
    # `--shell-completion install=bash` prints the function; the shell then asks with `query=bash`.
    if not any(argument.startswith("query=") for argument in arguments):
        _run_command("train", PROGRAM, arguments)
    # The first word is still being typed: it is the command.
    elif not space:
        print(" ".join(name for name in COMMANDS if name.startswith(command)))
    elif command == "explain":
        print(" ".join(complete_explained(_last_word(overrides))))
    elif command in COMMANDS and (found := complete_value(_last_word(overrides))) is not None:
        print(" ".join(found))
    elif command in COMMANDS and command not in PLAIN_COMMANDS:
        os.environ["COMP_LINE"] = f"{PROGRAM} {overrides}"
        _run_command(command, PROGRAM, arguments)


def _last_word(line: str) -> str:
    return line.rpartition(" ")[2]


if __name__ == "__main__":
    main()
