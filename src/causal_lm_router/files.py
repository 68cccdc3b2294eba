"""Files and folders that appear complete or not at all: written beside their place, flushed to disk, then renamed.

The temporary file or folder is hidden and ends in `.tmp`; only a killed process leaves one behind.
"""

import ast
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
    """Write `text` as UTF-8 to `path`, completely or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, completely or not at all."""
    with open_atomic(path, "wb") as file:
        file.write(content)


@overload
def open_atomic(path: Path, mode: Literal["w"] = "w") -> AbstractContextManager[TextIO]: ...


@overload
def open_atomic(path: Path, mode: Literal["wb"]) -> AbstractContextManager[BinaryIO]: ...


def open_atomic(path: Path, mode: Literal["w", "wb"] = "w") -> AbstractContextManager[IO[Any]]:
    """Open a file that takes its place when the block ends; `w` is UTF-8 text with line ends as given, `wb` bytes.

    If the block raises, an earlier file at `path` stays as it was. The parent folder must exist.

    Raises:
        ValueError: the mode is another one.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"mode must be w or wb, got {mode!r}")
    return _open_atomic(path, mode)


@contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path` that takes its place, all files flushed, when the block ends.

    If the block raises, the temporary folder is removed. The parent folder must exist.

    Raises:
        FileExistsError: `path` exists and is not an empty folder, or becomes so while the block runs.
    """
    # Refused before the work as well as at its end: what the block does may take hours.
    _refuse_occupied(path)
    temporary = _name_temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        # Flushed before the rename: after a power cut the folder must not be in place with empty files.
        for inside in [*temporary.rglob("*"), temporary]:
            _sync(inside)
        _rename_folder(temporary, path)
    finally:
        # Still there only where something failed.
        if temporary.exists():
            shutil.rmtree(temporary)
    _sync(path.parent)  # the rename itself is an entry in the parent folder


@contextmanager
def _open_atomic(path: Path, mode: Literal["w", "wb"]) -> Iterator[IO[Any]]:
    temporary = _name_temporary(path)
    try:
        # "x": the name is random, and a file that has it nevertheless is somebody else's.
        with open(temporary, "xb") if mode == "wb" else open(temporary, "x", encoding="utf-8", newline="") as file:
            yield file
            # To disk before the rename, so that the new name never shows a half-written file.
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _name_temporary(path: Path) -> Path:
    # In the same folder, since a rename is atomic only within one file system; shortened, since names have a limit.
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.tmp")


def _rename_folder(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        # The rename is itself the check: after an earlier check another process could still create the folder.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise FileExistsError(_OCCUPIED.format(target)) from error


def _refuse_occupied(path: Path) -> None:
    # A link counts as occupied even where it leads nowhere: the rename would not replace what it leads to.
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise FileExistsError(_OCCUPIED.format(path))


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk; links are left alone."""
    if path.is_symlink():
        return
    # A folder cannot be opened to write, and flushing does not need it.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_dir() -> Path:
    """Return the folder of prepared base models and encoded data.

    It is $CAUSAL_LM_ROUTER_CACHE, else ~/.cache/causal-lm-router.
    """
    return Path(os.environ.get("CAUSAL_LM_ROUTER_CACHE", Path.home() / ".cache" / "causal-lm-router")).expanduser()


def code_alone(source: str) -> str:
    """Return the syntax tree of Python source as text, without comments and docstrings: what a result can depend on.

    Two sources with the same text run the same, so a hash of it tells changed code from mended prose. A text that
    stands as a statement, such as the explanation below a field, counts as a docstring.
    """
    # Comments are not part of the tree; docstrings are, and are taken out of every body.
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [statement for statement in body if not _is_prose(statement)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_prose(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)
