"""Overrides as they are typed, made ready for Hydra: text is taken as it stands, mistakes are told in one line."""

import re
from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from causal_lm_router.config.keys import find_keys, is_group, is_text_key, mapping_keys


def read_overrides(words: Iterable[str], *, is_sweep: bool = False) -> list[str]:
    """Return the overrides in Hydra's grammar.

    What is given to a key that holds a text stands for that text, also where it has characters of Hydra's grammar in
    it, such as `~`, `=`, brackets and braces, and needs no second pair of quotes. In a sweep a comma may part values,
    so a text with such characters and a comma needs its quotes there.

    Raises:
        ValueError: a word that is no override, or a value that Hydra cannot read; the key is named.
    """
    return [_read(word, is_sweep=is_sweep) for word in words]


def key_of(override: str) -> str:
    """Return the key or group that an override is for, without `+`, `~` or a package behind `@`."""
    return override.split("=", 1)[0].lstrip("+~").partition("@")[0]


def allow_new_keys(arguments: Iterable[str]) -> list[str]:
    """Return the arguments of a command line; those that set a mapping, or a key of one, may add keys to it.

    The keys of a mapping are the user's: `data.columns.scores={llm-a: score_a}` becomes `++data.columns.scores=...`,
    Hydra's form for that.
    """
    return [f"++{argument}" if _sets_a_mapping(argument) else argument for argument in arguments]


def _sets_a_mapping(argument: str) -> bool:
    key, has_value, _ = argument.partition("=")
    return bool(has_value) and any(f"{key}.".startswith(f"{mapping}.") for mapping in mapping_keys())


def _read(word: str, *, is_sweep: bool) -> str:
    key = key_of(word)
    # A deletion stands without a value.
    if "=" not in word and not word.startswith("~"):
        raise ValueError(
            f"an override must be group=choice or group.key=value, got {word!r}; a value with spaces goes in quotes"
        )
    if word.startswith("+") and is_group(key):
        raise ValueError(f"{key} must be chosen without +, as {word.lstrip('+')}, got {word!r}")
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        if not is_text_key(key) or (is_sweep and "," in word):
            raise ValueError(_cannot_read(word)) from error
        return quote_text(word)
    if is_group(key) and not word.startswith("~") and override.value() is None:
        raise ValueError(f"{key} must be a choice of the group, got 'null'")
    return quote_text(word) if is_text_key(key) and not _keeps_text(override) else word


def _keeps_text(override: Override) -> bool:
    """Whether Hydra reads a text as it was typed, or as null, or as the values of a sweep."""
    if override.is_sweep_override() or override.is_delete():
        return True
    # It reads `1e3` as a number, which then becomes the text `1000.0`, and `{query}` as keys and values.
    return isinstance(override.value(), str | QuotedString | None)


def _cannot_read(word: str) -> str:
    key, value = key_of(word), word.partition("=")[2]
    what = next((each.what for each in find_keys(key)), "a value that Hydra can read")
    quoted = quote_text(word)
    # The whole word in the shell's quotes, the text in Hydra's.
    advice = (
        f'; a text with special characters goes in quotes: "{quoted}"' if "a text" in what or "value" in what else ""
    )
    return f"{key} must be {what}, got {value!r}{advice}"


def quote_text(argument: str) -> str:
    """Return `key=text` as an override that stands for exactly this text, with any characters in it."""
    key, _, text = argument.partition("=")
    # In quotes, Hydra takes backslashes for an escape where a quote follows, and only there.
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), take_literally(text))
    return f"{key}='{escaped}'"


def take_literally(value: Any) -> Any:
    """Return plain values with every `${` in their texts escaped, so that OmegaConf takes it as it stands."""
    match value:
        case dict():
            return {key: take_literally(inner) for key, inner in value.items()}
        case list():
            return [take_literally(inner) for inner in value]
        case str():
            return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", value)
    return value
