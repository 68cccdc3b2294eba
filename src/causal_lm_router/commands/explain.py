"""Say what groups and keys are for: type, default, choices, and which commands on a run honour them.

causal-lm-router explain lora
causal-lm-router explain data.tie_break optim.learning_rate
"""

import argparse
import functools
import textwrap
from collections.abc import Iterator
from typing import Any

from causal_lm_router.commands.errors import fail_on_bad_input
from causal_lm_router.commands.help import choices_of, keys_in, say_choice
from causal_lm_router.config.compose import compose_config, conf_dir
from causal_lm_router.config.honoured import HONOURED, honours
from causal_lm_router.config.keys import BASELINE, Key, did_you_mean, find_keys, is_group, similar_keys
from causal_lm_router.config.own_code import FUNCTION
from causal_lm_router.config.plain import config_dict
from causal_lm_router.config.prompting import TargetKind


def main() -> None:
    """Run the `explain` command; an unknown key ends it with one line on standard error and status 1."""
    parser = argparse.ArgumentParser(prog="causal-lm-router explain", description=__doc__.split("\n")[0])
    parser.add_argument("keys", nargs="+", metavar="KEY", help="a group such as lora, or a key such as lora.lora_r")
    arguments = parser.parse_args()
    with fail_on_bad_input():
        print("\n\n".join("\n".join(_explain(name)) for name in arguments.keys))


def _explain(name: str) -> Iterator[str]:
    """Yield the lines about a group with its choices and keys, or about one key.

    Raises:
        ValueError: there is no such group or key.
    """
    name = name.split("=")[0].lstrip("+~")
    found, is_one = find_keys(name), is_group(name)
    if not found and not is_one:
        raise ValueError(f"KEY must be a group or a key, got {name!r}{did_you_mean(similar_keys(name))}")
    inside = list(keys_in(name))
    for key in found:
        yield from _about_key(key)
    if is_one:
        yield from [] if found else [f"{name}: presets, which set keys of several groups"]
        yield from (f"  {name}={choice}: {say_choice(name, choice)}" for choice in choices_of(name, [conf_dir()]))
    yield from [""] if inside else []
    for key in inside:
        yield from _about_key(key)


def _about_key(key: Key) -> Iterator[str]:
    kind = "" if is_group(key.name) else f"{key.what}{_say_default(key)}"
    where = f" (of {key.name.split('.')[0]}={', '.join(key.choices)})" if key.choices else ""
    yield f"{key.name}{where}: {kind}" if kind else key.name
    yield textwrap.fill(key.doc, 118, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    if commands := [command for command in HONOURED if honours(command, key.name)]:
        yield f"    On a run's folder: {', '.join(commands)}."


def _say_default(key: Key) -> str:
    """Return the default as the end of a line; nothing where the command line has to give the value."""
    group, choice = key.name.split(".")[0], key.choices[0] if key.choices else None
    value: Any = _defaults(group, choice)
    for part in key.name.split("."):
        if not isinstance(value, dict) or part not in value:
            return ""
        value = value[part]
    return "" if key.name.endswith(f".{FUNCTION}") else f"; default {_as_typed(value)}"


@functools.cache
def _defaults(group: str, choice: str | None) -> dict[str, Any]:
    """Return the settings without any override, apart from a choice of the group if one is given."""
    chosen = {"data": "simulated", **({BASELINE: "svm"} if group == BASELINE else {})}
    chosen |= {group: choice} if choice is not None else {}
    overrides = [f"{name}={value}" for name, value in chosen.items()]
    # A function of the user's has to be named.
    overrides += [f"{group}.{FUNCTION}=package.module:function"] if choice == "own" else []
    # The one objective that goes with it.
    overrides += ["objective=soft"] if choice == TargetKind.outcome else []
    command = BASELINE if group == BASELINE else "train"
    return config_dict(compose_config([*overrides, "run_dir=outputs/<name>/<date_time>"], command))


def _as_typed(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if isinstance(value, str) and (not value.strip() or "\n" in value) else str(value)
