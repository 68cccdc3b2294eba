"""Files and folders that appear complete or not at all: written beside their place, flushed to disk, then renamed.

The temporary file or folder is hidden and ends in `.tmp`. Only a killed process leaves one behind; the next one that
writes beside it removes it.
"""

import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, TextIO, overload

from causal_lm_router.files.locks import own, remove_abandoned

_OCCUPIED = "{} exists and is not an empty folder"
_SHORT = 40  # characters of a name that its temporary name keeps, since names have a limit


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
def write_folder(path: Path, *, replaces: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path` that takes its place, all files flushed, when the block ends.

    If the block raises, the temporary folder is removed. The parent folder must exist. With `replaces` it takes the
    place of an earlier folder too, which is gone for a moment in between.

    Raises:
        FileExistsError: `path` exists and is not an empty folder, or becomes so while the block runs.
    """
    # Refused before the work as well as at its end: what the block does may take hours.
    if not replaces:
        _refuse_occupied(path)
    temporary, descriptor = _make_temporary(path, is_folder=True)
    try:
        yield temporary
        # Flushed before the rename: after a power cut the folder must not be in place with empty files.
        for inside in [*temporary.rglob("*"), temporary]:
            _sync(inside)
        with _set_aside(path) if replaces else nullcontext():
            _rename_folder(temporary, path)
    finally:
        # Still there only where something failed.
        if temporary.exists():
            shutil.rmtree(temporary)
        os.close(descriptor)
    _sync(path.parent)  # the rename itself is an entry in the parent folder


def remove_folder(path: Path) -> None:
    """Remove a folder, if it is there; a process killed meanwhile leaves no part of it under its name."""
    with _set_aside(path):
        pass


@contextmanager
def _set_aside(path: Path) -> Iterator[None]:
    """Give a folder a temporary name while the block runs and remove it then; put it back if the block raises."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield
        return
    hidden = _name_temporary(path)
    try:
        own(descriptor)  # a living process has this folder in hand
        os.rename(path, hidden)
        try:
            yield
        except OSError:
            os.rename(hidden, path)
            raise
        shutil.rmtree(hidden)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left half written in a folder and below it, or of a name, in the folder alone."""
    pattern = re.compile(rf"\.{'.*' if name is None else re.escape(name[:_SHORT])}\.[0-9a-f]{{12}}\.tmp")
    for path in list(folder.rglob(".*.tmp") if name is None else folder.iterdir()):
        if pattern.fullmatch(path.name):
            remove_abandoned(path)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new folder among the system's temporary files, removed at the end; those of dead processes go first."""
    folder, descriptor = _make_temporary(Path(tempfile.gettempdir()) / "causal-lm-router", is_folder=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(descriptor)


@contextmanager
def _open_atomic(path: Path, mode: Literal["w", "wb"]) -> Iterator[IO[Any]]:
    temporary, descriptor = _make_temporary(path, is_folder=False)
    try:
        text = {} if mode == "wb" else {"encoding": "utf-8", "newline": ""}
        with open(descriptor, mode, **text) as file:  # type: ignore[call-overload]
            yield file
            # To disk before the rename, so that the new name never shows a half-written file.
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _make_temporary(path: Path, *, is_folder: bool) -> tuple[Path, int]:
    """Make a temporary file or folder for what `path` will be; return it with a descriptor that says we are alive."""
    remove_leftovers(path.parent, path.name)
    while True:
        temporary = _name_temporary(path)
        if is_folder:
            temporary.mkdir()
        try:
            # O_EXCL: the name is random, and a file that has it nevertheless is somebody else's.
            flags = os.O_RDONLY if is_folder else os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = os.open(temporary, flags, 0o666)
        except FileNotFoundError:
            if not is_folder:
                raise
            continue  # taken for abandoned before it could be marked
        if own(descriptor):
            return temporary, descriptor
        os.close(descriptor)


def _name_temporary(path: Path) -> Path:
    # In the same folder, since a rename is atomic only within one file system.
    return path.with_name(f".{path.name[:_SHORT]}.{secrets.token_hex(6)}.tmp")


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


def refuse_links(folder: Path, *, deep: bool = True) -> None:
    """Check that what lies in a folder lies there itself: nothing in it is written through a link to another place.

    Links that stay inside are allowed, as W&B makes them. Without `deep` folders inside are not looked into.

    Raises:
        ValueError: there is a link that leads out, or something that is neither a file nor a folder.
    """
    inside = os.path.realpath(folder)
    for place, folders, files in os.walk(folder):
        for path in (os.path.join(place, name) for name in (*folders, *files)):
            target = os.path.realpath(path)
            if os.path.islink(path) and not target.startswith(f"{inside}{os.sep}"):
                raise ValueError(f"{path}: must lie in {folder} itself, got a link to {target}")
            # Reading a pipe would wait for ever. A link to nothing is replaced like a file.
            if os.path.lexists(target) and not (os.path.isfile(target) or os.path.isdir(target)):
                raise ValueError(f"{path}: must be a file or a folder, got neither")
        if not deep:
            return
        # The folders of W&B's own runs hold links to its logs; it writes into none that it finds.
        if os.path.basename(place) == "wandb":
            folders[:] = [name for name in folders if not name.startswith(("run-", "offline-run-"))]


def cache_dir() -> Path:
    """Return the folder of prepared base models and encoded data.

    It is $CAUSAL_LM_ROUTER_CACHE, else ~/.cache/causal-lm-router.
    """
    return Path(os.environ.get("CAUSAL_LM_ROUTER_CACHE", Path.home() / ".cache" / "causal-lm-router")).expanduser()
