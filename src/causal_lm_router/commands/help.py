"""The `--help` of commands that take settings: what they are for, and the groups and keys that they honour."""

import importlib
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from causal_lm_router.config.compose import conf_dir
from causal_lm_router.config.honoured import HONOURED
from causal_lm_router.config.keys import PRESET_GROUPS, SCHEMAS, Key, all_keys, find_keys, is_group

OPTIONS = """\
-m, --multirun      run a sweep over the values that commas part
--cfg job           print the composed config, and run nothing
--config-dir DIR    look for choices of your own there too
--quiet             show warnings, errors and results alone
--hydra-help        all options of Hydra"""


def print_help(command: str, own_folders: Iterable[str] = ()) -> None:
    """Print the help of a command; choices in the user's own folders are listed too."""
    module = importlib.import_module(f"causal_lm_router.commands.{command}")
    folders = [conf_dir(), *own_folders]
    keys = [key for name in taken_by(command) for key in find_keys(name)[:1] if not is_group(name)]
    print(f"usage: causal-lm-router {command} [option] [group=choice] [group.key=value] ...\n")
    print(inspect.cleandoc(module.__doc__ or ""))
    groups = [name for name in taken_by(command) if is_group(name)]
    _print_block("groups", [f"{group}: {', '.join(choices_of(group, folders))}" for group in groups])
    _print_block("keys", [f"{key.name}: {key.doc}" for key in keys])
    if command in HONOURED:
        print("\nAll other settings stay as the run has them.")
    _print_block("options", OPTIONS.splitlines())
    print("\ncausal-lm-router explain <group or key> says what it is for, such as: causal-lm-router explain lora")


def taken_by(command: str) -> list[str]:
    """Return the groups and keys that a command takes: of a command on a run those that it honours."""
    if command in HONOURED:
        return list(HONOURED[command])
    # The command `data` takes what `train` takes.
    schema = SCHEMAS.get(f"{command}_schema", SCHEMAS["train_schema"])
    names = list(inspect.get_annotations(schema))
    for base in schema.__mro__[1:]:
        names = [*inspect.get_annotations(base), *names]
    return [*names, *(PRESET_GROUPS if command != "prepare" else ())]


def choices_of(group: str, folders: Iterable[str | Path]) -> list[str]:
    """Return the choices of a group in these folders of config files."""
    return sorted({path.stem for folder in folders for path in (Path(folder) / group).glob("*.yaml")})


def say_choice(group: str, choice: str) -> str:
    """Return what a choice's file says of itself in its first lines; nothing for a file of the user's."""
    path = Path(conf_dir()) / group / f"{choice}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    said = next((line for line in lines if line.startswith("# ") and "@package" not in line), "")
    return said.removeprefix("# ").removeprefix("Shows: ")


def keys_in(group: str) -> Iterator[Key]:
    """Yield the keys inside a group, in their order."""
    return (key for key in all_keys() if key.name.startswith(f"{group}."))


def _print_block(title: str, lines: list[str]) -> None:
    """Print lines under a title; long ones go on below their own beginning."""
    if lines:
        print(f"\n{title}:")
    for line in lines:
        print(textwrap.fill(line, 118, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False))
