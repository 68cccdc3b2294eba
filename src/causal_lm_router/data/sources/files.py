"""The files that a `data.*` path stands for: a file, the files of a folder, or the matches of a glob."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

# Only whole words count: `latest.jsonl` and `contest.jsonl` are not test files.
_SPLIT_WORD = re.compile(r"(?<![a-z])(train|test|validation)(?:ing)?(?![a-z])")


def require_path(key: str, value: str | None, expected: str) -> str:
    """Return `value`, the path under `key`.

    Raises:
        ValueError: it is None or empty; the message says what it must be, which is `expected`.
    """
    if not value:
        raise ValueError(f"{key} must be {expected}, got {value!r}")
    return value


def find_files(key: str, value: str, names: Sequence[str], without: str | None = None) -> list[Path]:
    """Return the files that `value` stands for: the file itself, the `names` (globs) of a folder, or a glob's matches.

    Files that match `without` (a glob) are left out of a folder. Files are in the order of their names, those of the
    test split last.

    Raises:
        ValueError: there is no such file; the message names the key and the path.
    """
    path = Path(value).expanduser()
    reason = "no such file or folder"
    found = {path}
    if path.is_dir():
        found = {file for name in names for file in path.glob(name) if without is None or not file.match(without)}
        reason = f"this folder has no {' or '.join(names)}"
    # A name with brackets can also be a real file, which then wins over the glob.
    elif glob.has_magic(value) and not path.exists():
        found = {Path(match) for match in glob.glob(str(path), recursive=True)}
    files = [file for file in found if file.is_file()]
    if not files:
        raise ValueError(
            f"{key} must be a file or glob, or a folder with {' or '.join(names)}, got {value!r}: {reason}"
        )
    # Test last, so that a query in both splits gets its plain id in train.
    return sorted(files, key=lambda file: (source_split(file) == "test", file))


def source_split(path: Path) -> str | None:
    """Return "train", "validation" or "test" if the file's name has exactly one of these words, else None."""
    words = set(_SPLIT_WORD.findall(path.stem.lower()))
    return words.pop() if len(words) == 1 else None
