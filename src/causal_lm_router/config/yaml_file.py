"""YAML files that come from elsewhere: read within bounds, so that no file takes minutes or all memory."""

from pathlib import Path
from typing import Any

import yaml

from causal_lm_router.files.checksums import read_checked

MAX_BYTES = 500_000
MAX_DEPTH = 32
LONGEST_WORD = 5_000
"""Characters of a word without quotes: YAML reads 1:2:3 as a number, which takes the square of its length."""
# The parser in C is ten times as fast; where PyYAML was built without it the other one reads the same.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    """Return the plain values in a YAML file; no tag makes it build anything else.

    Raises:
        ValueError: the file is no YAML, is larger or nested deeper than any config is, or holds an alias: a few lines
            of aliases can stand for billions of values. The message names file and line.
        DamagedError: it differs from its checksum, or is not UTF-8.
        OSError: it cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: must have at most {MAX_BYTES:,} bytes")
    text = read_checked(path)
    try:
        _check(path, text)
        return yaml.load(text, _LOADER)
    except (yaml.YAMLError, ValueError) as error:
        # On one line; PyYAML says where on lines of their own.
        problem = "; ".join(" ".join(line.split()) for line in str(error).splitlines() if line.strip())
        raise ValueError(problem if problem.startswith(f"{path}:") else f"{path}: cannot be read: {problem}") from error


def _check(path: Path, text: str) -> None:
    """Raise ValueError for what makes a small text expensive; events come one by one, before anything is built."""
    depth = 0
    for event in yaml.parse(text, _LOADER):
        assert event.start_mark is not None, "the parser of a text knows where it is"
        where = f"{path}:{event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"{where}: must be written out, got the alias *{event.anchor}")
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and len(event.value) > LONGEST_WORD:
            if len(event.value.split(maxsplit=1)) < 2:
                raise ValueError(f"{where}: must hold words of at most {LONGEST_WORD:,} characters")
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ValueError(f"{where}: must be nested at most {MAX_DEPTH} deep")
