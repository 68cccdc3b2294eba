"""The version of a model: a text that changes when the content of its files does, whatever their place and name."""

import functools
import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from causal_lm_router.files.checksums import CHECKSUMS
from causal_lm_router.files.writing import cache_dir, write_text
from causal_lm_router.models.hub import hub_answers

_STILL_S = 2.0
"""A file that changed less than so long ago may change again within the same tick of the file system's clock."""


def model_version(name_or_path: str, revision: str | None = None) -> str:
    """Return a hash of the model's files: those of a folder by their content, those of the hub by their commit.

    Raises:
        OSError: the model is neither a folder nor on the hub or in its cache.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        return _hub_commit(name_or_path, revision)
    # What this package made lies in the cache with checksums, which are compared when it is loaded.
    if folder.resolve().is_relative_to(cache_dir().resolve()) and (folder / CHECKSUMS).is_file():
        return hashlib.sha256((folder / CHECKSUMS).read_bytes()).hexdigest()
    # Hidden files, such as .git, are not part of a model.
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return hash_files(folder, [path for path in paths if not any(part.startswith(".") for part in path.parts)])


@functools.cache  # a process stays with the commit that it began with
def _hub_commit(name: str, revision: str | None) -> str:
    # The hub's cache keeps the files of a commit in a folder of its name.
    path = hf_hub_download(name, "config.json", revision=revision, local_files_only=not hub_answers())
    return Path(path).parent.name


def hash_files(folder: Path, names: Iterable[Path]) -> str:
    """Return a hash of the names and contents of files in a folder.

    A file is read again only where its size, times or inode have changed: its hash is kept in the cache folder.
    """
    place = hashlib.sha256(str(folder.resolve()).encode(errors="surrogateescape")).hexdigest()[:32]
    record = cache_dir() / "file_hashes" / f"{place}.json"
    known, found = _read_record(record), {}
    for name in sorted(names):
        stat, now = (folder / name).stat(), time.time()
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        entry = known.get(str(name))
        if not isinstance(entry, list) or entry[:-1] != state:
            with open(folder / name, "rb") as file:
                entry = [*state, hashlib.file_digest(file, "sha256").hexdigest()]
        found[str(name)] = entry
        if now - stat.st_ctime < _STILL_S:
            known.pop(str(name), None)
        else:
            known[str(name)] = entry
    kept = {name: known[name] for name in found if name in known}
    if kept != _read_record(record):
        record.parent.mkdir(parents=True, exist_ok=True)
        write_text(record, json.dumps(kept))
    return hashlib.sha256(json.dumps([[name, entry[-1]] for name, entry in found.items()]).encode()).hexdigest()


def _read_record(record: Path) -> dict[str, Any]:
    try:
        known = json.loads(record.read_bytes())
    except (FileNotFoundError, ValueError):
        # Damaged: the files are read again, and the record is written anew.
        return {}
    return known if isinstance(known, dict) else {}
