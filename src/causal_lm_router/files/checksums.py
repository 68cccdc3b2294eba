"""Checksums: a file beside others says what they held when they were written, and they are compared when they are read.

`checksums.txt` has a line per file of its folder (CRC-32, size in bytes, name) and a last one for the lines above it.
They tell damage (a cut, zeroed or flipped byte), not forgery. Files without a line are not compared: run folders of
earlier versions have none.
"""

import logging
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from causal_lm_router.files.writing import remove_folder, remove_leftovers, write_folder, write_text

logger = logging.getLogger(__name__)
CHECKSUMS = "checksums.txt"
RESTORE = "restore it from a copy; if it was changed on purpose, remove {}"
GROWING = ("metrics.csv",)
"""Files that grow after their checksum was written: what they held then is compared, and not what came later."""
_BLOCK = 1 << 20
_LINE = re.compile(r"([0-9a-f]{8}) (\d+) (.+)")

_compared: dict[Path, list[tuple[str, int, int]]] = {}
"""Folder whose files this process has compared -> their names, sizes and times then."""


class DamagedError(ValueError):
    """A file does not hold what was written."""


class Checksum(NamedTuple):
    """CRC-32 of a file in hexadecimal digits, and its size in bytes."""

    crc: str
    size: int


def add_checksums(folder: Path) -> None:
    """Write the checksums of all files in a folder and below it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    _write(folder, {str(path.relative_to(folder)): _checksum(path) for path in files})


def write_checked(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, completely or not at all, and then its checksum."""
    drop_checksum(path)
    write_text(path, text)
    add_checksum(path)


def add_checksum(path: Path) -> None:
    """Write the checksum of a file, where it is there, to those of its folder."""
    if not path.is_file():
        return
    _write(path.parent, {**_read(path.parent), path.name: _checksum(path)})


def cut_to_checksum(path: Path) -> None:
    """Take away what has come into a growing file since its checksum was written."""
    expected = _read(path.parent).get(path.name)
    if expected is not None and path.is_file() and path.stat().st_size > expected.size:
        os.truncate(path, expected.size)


def drop_checksum(path: Path) -> None:
    """Remove the checksum of a file that is about to change: a process killed meanwhile leaves a file without one."""
    known = _read(path.parent)
    if known.pop(path.name, None) is not None:
        _write(path.parent, known)


def read_checked(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        DamagedError: it differs from its checksum, or is not UTF-8.
        FileNotFoundError: there is no such file.
    """
    check_file(path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path}: damaged: it is not UTF-8 text at byte {error.start}; {_advice(path)}") from error


def check_file(path: Path) -> None:
    """Compare a file with its checksum, where there is one.

    Raises:
        DamagedError: they differ.
        FileNotFoundError: there is no such file.
    """
    expected = _read(path.parent).get(path.name)
    if expected is not None and (problem := _compare(path, expected)):
        raise DamagedError(f"{path}: damaged: {problem}; {_advice(path)}")


def check_files(folder: Path, advice: str | None = None) -> None:
    """Compare the files of a folder with their checksums, once a process; `advice` says what to do where they differ.

    Raises:
        DamagedError: a file differs or is missing.
    """
    if not (folder / CHECKSUMS).is_file():
        return
    stats = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    state = [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    if _compared.get(folder.resolve()) == state:
        return
    for path, problem in _find_damage(folder):
        raise DamagedError(f"{path}: damaged: {problem}; {advice or _advice(path)}")
    _compared[folder.resolve()] = state


def find_damage(folder: Path) -> tuple[int, list[str]]:
    """Return how many files in a folder and below it have checksums, and a sentence for each that is damaged."""
    number, found = 0, []
    for checksums in sorted(folder.rglob(CHECKSUMS)):
        try:
            number += len(_read(checksums.parent))
            found += [f"{path}: damaged: {problem}" for path, problem in _find_damage(checksums.parent)]
        except DamagedError as error:
            found.append(str(error))
    return number, found


def make_cached(folder: Path, make: Callable[[Path], None], what: str | None = None) -> None:
    """Have `make` fill a folder of the cache, whole or not at all, unless it is there and undamaged.

    A damaged one is removed and made anew, with a line in the log. `what` is a line for the log when it is made.
    """
    if folder.is_dir() and not (folder / CHECKSUMS).is_file():
        # Of an earlier version.
        remove_folder(folder)
    remove_damaged(folder)
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    # All of the same kind, whatever their names: caches can be gigabytes.
    remove_leftovers(folder.parent)
    if what is not None:
        logger.info("%s in %s", what, folder)
    try:
        with write_folder(folder) as temporary:
            make(temporary)
            add_checksums(temporary)
    except FileExistsError:
        logger.info("another process made %s meanwhile", folder)


def remove_damaged(folder: Path) -> None:
    """Remove a folder that can be made anew where one of its files is damaged, with a line in the log."""
    try:
        check_files(folder, "it is made anew")
    except DamagedError as error:
        logger.warning("%s", error)
        remove_folder(folder)


def _advice(path: Path) -> str:
    return RESTORE.format(path.parent / CHECKSUMS)


def _find_damage(folder: Path) -> Iterator[tuple[Path, str]]:
    for name, expected in _read(folder).items():
        path = folder / name
        problem = _compare(path, expected) if path.is_file() else "it is missing"
        if problem:
            yield path, problem


def _compare(path: Path, expected: Checksum) -> str | None:
    size = path.stat().st_size
    if size != expected.size and not (path.name in GROWING and size > expected.size):
        return f"it has {size:,} of {expected.size:,} bytes"
    return None if _checksum(path, expected.size) == expected else "its content is not what was written"


def _checksum(path: Path, size: int | None = None) -> Checksum:
    """Return the checksum of a file, or of its first `size` bytes."""
    left = path.stat().st_size if size is None else size
    crc = done = 0
    with path.open("rb") as file:
        while block := file.read(min(_BLOCK, left - done)):
            crc, done = zlib.crc32(block, crc), done + len(block)
    return Checksum(f"{crc:08x}", done)


def _read(folder: Path) -> dict[str, Checksum]:
    path = folder / CHECKSUMS
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return {}
    # The last line is about the lines above it.
    found = [_LINE.fullmatch(line.decode(errors="replace").removesuffix("\n")) for line in lines]
    known = {match[3]: Checksum(match[1], int(match[2])) for match in found if match}
    above = b"".join(lines[:-1])
    if None in found or known.pop(CHECKSUMS, None) != Checksum(f"{zlib.crc32(above):08x}", len(above)):
        raise DamagedError(
            f"{path}: damaged: its content is not what was written; restore it from a copy, or remove it"
        )
    return known


def _write(folder: Path, known: Mapping[str, Checksum]) -> None:
    text = "".join(f"{crc} {size} {name}\n" for name, (crc, size) in sorted(known.items()))
    above = text.encode()
    write_text(folder / CHECKSUMS, f"{text}{zlib.crc32(above):08x} {len(above)} {CHECKSUMS}\n")
