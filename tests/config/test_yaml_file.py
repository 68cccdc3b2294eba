"""YAML from elsewhere: within bounds, and with the file and the line in every message."""

import time
from pathlib import Path

import pytest

from causal_lm_router.config.yaml_file import MAX_DEPTH, read_yaml

ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
REFUSED = {
    "aliases": (ALIASES, ":2: must be written out, got the alias *a0"),
    "deep nesting": ("a: " + "[" * 100_000, f":1: must be nested at most {MAX_DEPTH} deep"),
    "deep blocks": ("".join("  " * depth + "a:\n" for depth in range(200)), f"must be nested at most {MAX_DEPTH} deep"),
    "size": ("#" * 500_001, ": must have at most 500,000 bytes"),
    "a number that takes the square": ("a: " + ":".join("1" * 100_000), ":1: must hold words of at most 5,000"),
    "an object": ("a: !!python/name:os.system", "could not determine a constructor for the tag"),
    "a number of many digits": ("a: " + "9" * 4999, "Exceeds the limit"),
    "a list as a key": ("? [a]\n: b", "found unhashable key"),
    "a NUL": ("a: b\0", "control characters are not allowed"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_expensive_or_no_plain_value_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path, start = tmp_path / "config.yaml", time.monotonic()
    path.write_text(text)
    with pytest.raises(ValueError, match="config") as error:
        read_yaml(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 10, "without the bounds it takes minutes, or all memory"


def test_long_texts_are_read(tmp_path: Path) -> None:
    text = "word " * 20_000
    (tmp_path / "config.yaml").write_text(f"a: {text}\nb: '{'x' * 20_000}'\nc: [[[[1]]]]\n")
    assert read_yaml(tmp_path / "config.yaml") == {"a": text.strip(), "b": "x" * 20_000, "c": [[[[1]]]]}
