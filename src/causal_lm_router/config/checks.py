"""What checks of settings share."""

DTYPES = ("float32", "bfloat16", "float16")
"""Number formats of weights, as torch names them."""


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise ValueError, with the key, the value and what is allowed, unless the condition holds."""
    if not condition:
        raise ValueError(f"{key}={value!r}: allowed is {allowed}")


def require_fraction(key: str, value: float) -> None:
    """Raise ValueError for a value outside 0..1."""
    require(0.0 <= value <= 1.0, key, value, "a number in 0..1")
