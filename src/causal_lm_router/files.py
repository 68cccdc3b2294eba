"""Files and folders that appear whole or not at all: written beside their place, flushed to disk, then renamed.

The temporary sibling is hidden and ends in `.tmp`; only a process killed on the spot leaves one behind.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, TextIO, overload

_OCCUPIED = "{} exists and is not an empty folder"


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with open_atomic(path, "wb") as file:
        file.write(content)


@overload
def open_atomic(path: Path, mode: Literal["w"] = "w") -> AbstractContextManager[TextIO]: ...


@overload
def open_atomic(path: Path, mode: Literal["wb"]) -> AbstractContextManager[BinaryIO]: ...


def open_atomic(path: Path, mode: Literal["w", "wb"] = "w") -> AbstractContextManager[IO[Any]]:
    """Open a file that takes its place when the block ends; `w` is UTF-8 text with line ends as given, `wb` bytes.

    Where the block raises, an earlier file at `path` stays as it was. The parent folder must exist. Raises ValueError
    for any other mode.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"mode={mode!r}: allowed is w | wb")
    return _open_atomic(path, mode)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path` that takes its place, all files flushed, when the block ends.

    Where the block raises, the temporary folder is removed. The parent folder must exist. Raises FileExistsError where
    `path` exists and is not an empty folder, also when it came up while the block ran.
    """
    _refuse_occupied(path)
    temporary = _sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        for inside in [*temporary.rglob("*"), temporary]:
            _sync(inside)
        _move_folder(temporary, path)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)
    _sync(path.parent)


@contextmanager
def _open_atomic(path: Path, mode: Literal["w", "wb"]) -> Iterator[IO[Any]]:
    temporary = _sibling(path)
    try:
        with open(temporary, "xb") if mode == "wb" else open(temporary, "x", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sibling(path: Path) -> Path:
    # In the same folder, since a rename is atomic only within one file system.
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.tmp")


def _move_folder(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        # The rename itself is the check: one before it could be overtaken by another process.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise FileExistsError(_OCCUPIED.format(target)) from error


def _refuse_occupied(path: Path) -> None:
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise FileExistsError(_OCCUPIED.format(path))


def _sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to disk; what a link points to is not ours to flush."""
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_dir() -> Path:
    """Folder of prepared base models and encoded data: $CAUSAL_LM_ROUTER_CACHE, else ~/.cache/causal-lm-router."""
    return Path(os.environ.get("CAUSAL_LM_ROUTER_CACHE", Path.home() / ".cache" / "causal-lm-router")).expanduser()
