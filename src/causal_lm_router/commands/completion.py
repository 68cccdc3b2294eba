"""What Tab completes beyond Hydra's groups and keys: the values of a key, files, and names for `explain`."""

from collections.abc import Iterator
from pathlib import Path

from causal_lm_router.config.keys import PRESET_GROUPS, all_keys, find_keys, is_text_key


def complete_value(word: str) -> list[str] | None:
    """Return `key=value` for every value that may go on with `word`; None where Hydra has to say.

    The values of an enum or of true and false, and for a text the files that its beginning leads to.
    """
    key, separator, begun = word.partition("=")
    prefix = f"{key}{separator}"
    plain = key.lstrip("+")
    if not separator or not find_keys(plain):
        return None
    if is_text_key(plain):
        return [f"{prefix}{path}" for path in _paths(begun)]
    values = dict.fromkeys(value for found in find_keys(plain) for value in found.values)
    return [f"{prefix}{value}" for value in values if value.startswith(begun)] if values else None


def complete_explained(word: str) -> list[str]:
    """Return the groups and keys that begin with `word`; those inside a group once the word has its dot."""
    names = dict.fromkeys([*(key.name for key in all_keys()), *PRESET_GROUPS])
    depth = word.count(".")
    return [name for name in names if name.startswith(word) and name.count(".") == depth]


def _paths(begun: str) -> Iterator[str]:
    """Yield files and folders (with a slash behind them) that begin like this, as it is typed: also with `~`."""
    folder, slash, name = begun.rpartition("/")
    place = Path(f"{folder}{slash}" or ".").expanduser()
    for path in sorted(place.iterdir()) if place.is_dir() else []:
        # The shell parts words at spaces, and hides what begins with a dot until it is asked for.
        if path.name.startswith(name) and " " not in path.name and (name or not path.name.startswith(".")):
            yield f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}"
