"""How settings are checked: each check says in one sentence what is wrong, so that all of them can be told at once."""

import re
from collections.abc import Iterator
from enum import Enum

from causal_lm_router.config.own_code import names_a_function

DTYPES = ("float32", "bfloat16", "float16")
"""Number formats of weights, as torch names them."""
AUTO = "auto"
"""Stands for the number format that the machine is fast at."""
LONGEST_NAME = 200
"""Bytes of a name that becomes a file: file systems take 255, and some names get an ending."""
_FILE_NAME = re.compile(r"\w[\w.-]*")
AT_LEAST_1 = "an integer of at least 1"


class Settings:
    """A part of the config that knows what its values may be."""

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each value that cannot be used, those of the parts inside included."""
        # Its own first, then group by group in the order of the fields, so that messages always come in one order.
        yield from self._own_problems()
        for value in vars(self).values():
            if isinstance(value, Settings):
                yield from value.problems()

    def _own_problems(self) -> Iterator[str]:
        """Yield the problems of the fields that this class adds; a subclass yields those of its base class first."""
        yield from ()

    def check_counts(self, group: str, *names: str, or_null: bool = False) -> Iterator[str]:
        """Yield a problem for each of these fields of the group that is below 1."""
        for name in names:
            value = getattr(self, name)
            # null passes here: a field that must not be null is refused by its type.
            fits = value is None or value >= 1
            yield from check(fits, f"{group}.{name}", AT_LEAST_1 + (", or null" if or_null else ""), value)


def check(fits: bool, key: str, what: str, value: object) -> Iterator[str]:
    """Yield `<key> must be <what>, got <value>` unless the value fits."""
    if not fits:
        yield f"{key} must be {what}, got {_plain(value)!r}"


def check_fraction(key: str, value: float) -> Iterator[str]:
    """Yield a problem for a value outside 0..1."""
    yield from check(0.0 <= value <= 1.0, key, "a number in 0..1", value)


def check_function(key: str, name: str | None, *, needed: bool) -> Iterator[str]:
    """Yield a problem for a function that is named where none is used, missing, or of another form."""
    # Whether a function is needed depends on the choice of its group: only `own` takes one.
    if needed:
        what = "the name of a Python function, package.module:function"
        yield from check(name is not None and names_a_function(name), key, what, name)
    else:
        yield from check(name is None, key, "null unless the choice is own", name)


def check_file_name(key: str, value: str | None, *, or_null: bool = False) -> Iterator[str]:
    """Yield a problem for a name that becomes a file or folder and could be taken for something else.

    `..` and names with a slash would lead elsewhere, a leading dot hides a file, a leading dash reads as an option.
    """
    fits = or_null if value is None else _FILE_NAME.fullmatch(value) is not None and len(value.encode()) <= LONGEST_NAME
    what = f"a name of letters, digits, _, - and ., not - or . first, of at most {LONGEST_NAME} bytes"
    yield from check(fits, key, what + (", or null" if or_null else ""), value)


def as_file_name(text: str) -> str:
    """Return a text as a name that `check_file_name` lets pass: other characters become dashes."""
    return re.sub(r"[^\w.-]", "-", text).lstrip("-.").encode()[:LONGEST_NAME].decode(errors="ignore") or "_"


def one_of(names: tuple[str, ...]) -> str:
    """Return the names as a sentence lists them: `a, b or c`."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _plain(value: object) -> object:
    # As the user writes it: an enum's own form would show the name of a class.
    return value.value if isinstance(value, Enum) else value
