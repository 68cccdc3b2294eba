"""Which files a `data.*` path means: a file, a folder or a glob."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

# "train" and "test" as words of their own: `latest.jsonl` and `contest.jsonl` are no test files.
_SPLIT_WORD = re.compile(r"(?<![a-z])(train|test)(?:ing)?(?![a-z])")


def require_path(key: str, value: str | None, expected: str) -> str:
    """Return `value`; raise ValueError that names the key and what it should point to where it is None or empty."""
    if not value:
        raise ValueError(f"{key}={value!r}: needed is {expected}")
    return value


def find_files(key: str, value: str, names: Sequence[str], without: str | None = None) -> list[Path]:
    """Return the files that `value` means: itself, the `names` (globs) of a folder, or the matches of a glob.

    Files named `without` (a glob) are left out of a folder. Files of the test split come last, else by name. Raises
    ValueError that names the key, the path and the expected files where there is none.
    """
    path = Path(value).expanduser()
    reason = "no such file or folder"
    found = {path}
    if path.is_dir():
        found = {file for name in names for file in path.glob(name) if without is None or not file.match(without)}
        reason = f"this folder holds no {' or '.join(names)}"
    elif glob.has_magic(value) and not path.exists():
        found = {Path(match) for match in glob.glob(str(path), recursive=True)}
    files = [file for file in found if file.is_file()]
    if not files:
        raise ValueError(f"{key}={value!r}: {reason}")
    return sorted(files, key=lambda file: (source_split(file) == "test", file))


def source_split(path: Path) -> str | None:
    """Return "train" or "test" where the file's name says so, else None."""
    words = set(_SPLIT_WORD.findall(path.stem.lower()))
    return words.pop() if len(words) == 1 else None
