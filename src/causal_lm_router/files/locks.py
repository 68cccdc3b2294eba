"""Locks that the kernel frees when their process ends, however it ends: owners of folders, and of temporary files.

A lock is held on an open file, so a process that was killed holds none. Processes on other machines count where the
file system shares locks.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import takewhile
from pathlib import Path

LOCK = ".lock"
"""Name of the file in a folder that says, and by its lock proves, who works there."""
_SHORT_WAIT_S = 2.0  # `is_held` locks for a moment, which must not look like an owner
_POLL_S = 0.05

_held: dict[Path, tuple[int, int]] = {}
"""Folder -> process and thread of the block that holds it; a forked process inherits the entries, not the ownership."""


class FolderHeldError(ValueError):
    """Another process, or another thread of this one, works in the folder."""


def is_first_process() -> bool:
    """True unless this is one of the further processes that a distributed strategy started."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


@contextlib.contextmanager
def hold_folder(folder: Path, key: str = "run_dir") -> Iterator[None]:
    """Be the only one who works in a folder, which is made where it is missing, until the block ends.

    Blocks of one thread may be nested. The further processes of a distributed run belong to the first one and hold
    nothing. A folder that was made here and is still empty at the end is removed. `key` is the setting that names it.

    Raises:
        FolderHeldError: somebody else holds it; the message says who, and nothing in the folder was touched.
    """
    place, owner = folder.absolute(), (os.getpid(), threading.get_ident())
    if not is_first_process() or _held.get(place) == owner:
        yield
        return
    missing = list(takewhile(lambda path: not path.exists(), (place, *place.parents)))
    descriptor = _lock_folder(place, key)
    _held[place] = owner
    try:
        yield
    finally:
        del _held[place]
        # First the file, then its lock: who waits for it sees that it is gone, and makes a new one.
        (place / LOCK).unlink(missing_ok=True)
        os.close(descriptor)
        _remove_empty(missing)


def is_held(folder: Path) -> bool:
    """True while a process works in the folder, on this machine or on another one with the same file system."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # A shared lock: two processes that ask at once do not take each other for the owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock_folder(folder: Path, key: str) -> int:
    """Return the descriptor whose lock makes this process the owner, with a line in the file that says so."""
    deadline = time.monotonic() + _SHORT_WAIT_S
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # its owner has just removed the folder
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise FolderHeldError(
                    f"{key} must be a folder in which nobody works, got {os.path.relpath(folder)}: "
                    f"{owner or 'another process'} does; wait for its end, or choose another folder"
                ) from None
            time.sleep(_POLL_S)
            continue
        # An owner that leaves removes the file: then this is a lock on nothing.
        if os.fstat(descriptor).st_nlink:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _describe_self().encode(errors="replace"), 0)
            return descriptor
        os.close(descriptor)


def _describe_self() -> str:
    # Without arguments, which may hold secrets.
    program = Path(sys.argv[0]).name
    return f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S} ({program})\n"


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, the innermost first, as far as nothing is in them."""
    for path in folders:
        try:
            path.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
            return


def make_new_folder(folder: Path) -> Path:
    """Make a folder that nobody has, and return it: the given one, or the first of `<folder>_2`, `<folder>_3`, ..."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    number, path = 1, folder
    while True:
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            path = folder.with_name(f"{folder.name}_{number}")
        else:
            return path


def own(descriptor: int) -> bool:
    """Mark an open temporary file or folder as that of a living process; False where it is being removed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks: then nobody takes it for abandoned either.
        return True
    return os.fstat(descriptor).st_nlink > 0


def remove_abandoned(path: Path) -> None:
    """Remove a temporary file or folder where its process is gone: that of a living one is locked (see `own`).

    Links, and what cannot be locked or removed for lack of rights, stay.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        # Gone meanwhile, a link, or somebody else's.
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in _STAYS:
            raise
    finally:
        os.close(descriptor)


_STAYS = (errno.EWOULDBLOCK, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors that leave something where it is: a living owner, no right to remove it, gone already, no locks there."""
