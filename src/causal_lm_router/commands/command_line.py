"""The words of a command line: Hydra's options, and settings that are made ready for Hydra."""

import argparse
from collections.abc import Iterable, Sequence

from hydra._internal.utils import get_args_parser

from causal_lm_router.config.honoured import check_honoured, honours
from causal_lm_router.config.keys import similar_keys
from causal_lm_router.config.overrides import quote_text, read_overrides

SHOWING_FLAGS = ("-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion")
"""With these a command shows something instead of running."""


def is_showing(words: Iterable[str]) -> bool:
    """True for a command line that shows something instead of running."""
    return any(word.split("=")[0] in SHOWING_FLAGS for word in words)


def asks_for_help(words: Iterable[str]) -> bool:
    """True for a command line that asks for the command's own help."""
    return any(word in ("-h", "--help") for word in words)


def own_folders(words: Sequence[str]) -> list[str]:
    """Return the folder of config files that `--config-dir` names, if it does."""
    parsed, _ = _parser().parse_known_intermixed_args(words)
    return [] if parsed.config_dir is None else [parsed.config_dir]


def read_words(command: str, words: Sequence[str], *, on_run: bool) -> list[str]:
    """Return the words as Hydra reads them: its options first, then the overrides in its grammar.

    Raises:
        ValueError: a word is neither, or a setting that a command `on_run` does not honour.
    """
    if "-sc" in words or "--shell-completion" in words:
        return list(words)
    options, overrides = _split(command, words, on_run=on_run)
    if on_run:
        check_honoured(command, overrides)
    is_sweep = bool({"-m", "--multirun"} & set(options)) or any(word.startswith("sweep=") for word in overrides)
    # A query is taken as it is typed, whatever is in it: also what Hydra would read as null or as a list.
    overrides = [quote_text(word) if word.startswith("query=") else word for word in overrides]
    return [*options, *read_overrides(overrides, is_sweep=is_sweep)]


def _split(command: str, words: Sequence[str], *, on_run: bool) -> tuple[list[str], list[str]]:
    """Return options and overrides, which may stand in any order."""
    try:
        parsed, unknown = _parser().parse_known_intermixed_args(words)
    except argparse.ArgumentError as error:
        raise ValueError(f"{error.argument_name} cannot be read: {error.message}") from error
    if unknown:
        raise ValueError(_refuse_option(command, unknown, on_run=on_run))
    options = list(words)
    for override in parsed.overrides:
        options.remove(override)
    return options, parsed.overrides


def _parser() -> argparse.ArgumentParser:
    parser = get_args_parser()
    # Errors are raised, not printed with the usage of all options; and no option has a short form that is a guess.
    parser.exit_on_error = False
    parser.allow_abbrev = False
    return parser


def _refuse_option(command: str, unknown: Sequence[str], *, on_run: bool) -> str:
    option, _, value = unknown[0].partition("=")
    value = value or next((word for word in unknown[1:2] if not word.startswith("-")), "...")
    # No advice that would be refused next.
    similar = [key for key in similar_keys(option.lstrip("-").replace("-", "_")) if not on_run or honours(command, key)]
    advice = " or ".join(f"{key}={value}" for key in similar) or "group.key=value"
    return f"{option} must be written as a setting, {advice}, got an option; see causal-lm-router {command} --help"
