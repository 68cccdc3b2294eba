"""Values of a row by their key, each refused where it is not what it must be."""

import math
import reprlib
from collections.abc import Mapping
from typing import Any


def require_text(row: Mapping[str, Any], key: str) -> str:
    """Return the text under `key`.

    Raises:
        ValueError: it is missing, blank or no text.
    """
    value = require(row, key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} must be a text that is not blank, got {reprlib.repr(value)}")
    return value


def optional_text(row: Mapping[str, Any], key: str) -> str | None:
    """Return the text under `key`, or None where it is missing or null.

    Raises:
        ValueError: it is blank or no text.
    """
    return None if row.get(key) is None else require_text(row, key)


def require_object(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the object under `key`.

    Raises:
        ValueError: it is missing or no object.
    """
    value = require(row, key)
    if not isinstance(value, dict):
        raise ValueError(f"{key!r} must be an object of candidates, got {reprlib.repr(value)}")
    return value


def optional_count(row: Mapping[str, Any], key: str) -> float | None:
    """Return the number of tokens under `key`, or None where it is missing or null.

    Raises:
        ValueError: it is not a finite number of at least 0.
    """
    value = row.get(key)
    if value is None:
        return None
    is_count = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    if not is_count:
        raise ValueError(f"{key!r} must be a number of tokens, got {reprlib.repr(value)}")
    return float(value)


def require(row: Mapping[str, Any], key: str) -> Any:
    """Return the value under `key`.

    Raises:
        ValueError: it is missing.
    """
    if key not in row:
        raise ValueError(f"key {key!r} is missing")
    return row[key]
