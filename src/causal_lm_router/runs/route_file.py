"""Routing a file of any length: read, encoded, routed and written in chunks, and gone on with after a kill.

Until all routes are there they lie beside their place, in the folder `<output>.part`: `about.json` says of what input,
run and settings they are, and every chunk is a file of its own. The same command goes on after the last whole chunk.
Chunks begin at the same queries in every run, so their batches, and with them their bytes, are the same.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from causal_lm_router.config import DecodingMethod, RouteConfig
from causal_lm_router.config.plain import config_dict, describe_differences
from causal_lm_router.config.redact import redact_names
from causal_lm_router.data.sources.queries import QueryFile
from causal_lm_router.files.checksums import CHECKSUMS, read_checked, write_checked
from causal_lm_router.files.locks import LOCK, hold_folder
from causal_lm_router.files.writing import remove_folder, remove_leftovers, write_bytes
from causal_lm_router.runs.provenance import code_hash
from causal_lm_router.runs.route_rows import Row, RowFormat, choose_format, encode_line
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.terminal import name_work, progress_bar

logger = logging.getLogger(__name__)
ABOUT = "about.json"
_SETTINGS = ("base_model", "lora", "prompt", "target", "objective", "inference", "decoding", "parsing", "chunk_size")
"""Settings that routes depend on."""
_WORDS = {"input": "input", "run": "run", "settings": "setting"}
"""What a part is of -> its word."""
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class CheckedQueries:
    """A file of queries every row of which can be used, and how their routes are written."""

    file: QueryFile
    number: int
    row_format: RowFormat

    def chunks(self, size: int, first: int = 0) -> Iterator[list[Row]]:
        """Yield the rows in chunks of `size`, from the chunk of number `first` on.

        Raises:
            ValueError: the file has another number of rows by now.
        """
        rows = itertools.islice(self.file.rows(), first * size, None)
        left = self.number - first * size
        while chunk := list(itertools.islice(rows, size)):
            left -= len(chunk)
            yield chunk
        if left:
            raise ValueError(f"input must stay as it is while it is routed, got a change of {self.file.shown}")


def check_queries(file: QueryFile, config: RouteConfig) -> CheckedQueries:
    """Read all rows of a file, as a stream, and return what routing them needs.

    Raises:
        ValueError: a row that cannot be used, with file and line; no query at all; values that the output cannot hold.
    """
    row_format, number = _choose_format(progress_bar(file.rows(), name="checking", unit="queries"), config)
    if not number:
        raise ValueError(f"input must hold a query, got {config.input!r}, which holds none")
    return CheckedQueries(file=file, number=number, row_format=row_format)


def _choose_format(rows: Iterable[Row], config: RouteConfig) -> tuple[RowFormat, int]:
    # A user's own decoding may score candidates too.
    scores = config.decoding.method in (DecodingMethod.scored, DecodingMethod.own)
    names = RunFolder(Path(config.run_dir)).read_metadata().candidate_names if scores else None
    return choose_format(Path(config.output).suffix if config.output else "", rows, names)


def write_answers(answers: Sequence[Row], config: RouteConfig) -> None:
    """Write routes to the file `output`, whole or not at all."""
    assert config.output is not None
    row_format, _ = _choose_format(answers, config)
    write_bytes(Path(config.output), row_format.encode(answers, is_first=True))


def print_routes(queries: CheckedQueries, config: RouteConfig, routes: TextIO) -> None:
    """Route all queries and write a line of JSON for each to `routes`, chunk by chunk."""
    for answers in _route(queries, config, first=0):
        routes.writelines(map(encode_line, answers))
        routes.flush()


def route_file(queries: CheckedQueries, config: RouteConfig) -> None:
    """Route all queries into the file `output`, which appears whole; a part that a killed command left is gone on with.

    Raises:
        ValueError: there is a part of another input, run or settings.
        FolderHeldError: another process routes into the same file.
        OSError: the routes cannot be written, for example on a full disk; those so far stay, and the message says so.
    """
    assert config.output is not None
    output = Path(config.output)
    part = _Part(output.with_name(f"{output.name}.part"), queries, config.chunk_size)
    with hold_folder(part.folder, "output"):
        config = part.begin(config, output)
        try:
            if part.num_routes() < queries.number:
                for answers in _route(queries, config, part.num_chunks()):
                    part.add(answers)
            part.join(output)
        except BaseException as error:
            part.leave(is_interrupted=isinstance(error, KeyboardInterrupt))
            raise
        remove_folder(part.folder)


def _route(queries: CheckedQueries, config: RouteConfig, first: int) -> Iterator[list[Row]]:
    """Yield the routes of every chunk from the number `first` on."""
    size = config.chunk_size
    chunks = queries.chunks(size, first)
    with progress_bar(unit="queries", total=queries.number, done=first * size) as bar:
        routed = _on_ray(config, chunks) if config.num_actors else _route_here(queries, config, chunks, first)
        for answers in routed:
            bar.update(len(answers))
            yield answers


def _route_here(
    queries: CheckedQueries, config: RouteConfig, chunks: Iterator[list[Row]], first: int
) -> Iterator[list[Row]]:
    from causal_lm_router.runs.router import CausalLMRouter

    size = config.chunk_size
    with CausalLMRouter.from_run(config.run_dir, config) as router:
        for number, rows in enumerate(chunks, start=first):
            # The bar of the chunk is told from that of the file.
            with name_work(f"from query {number * size + 1:,}") if queries.number > size else contextlib.nullcontext():
                answers = router.route_batch(rows)
            yield answers


def _on_ray(config: RouteConfig, chunks: Iterator[list[Row]]) -> Iterator[list[Row]]:
    from causal_lm_router.runs.ray_routes import route_on_ray

    return route_on_ray(config, chunks)


class _Part:
    """The folder of an output that is not whole yet."""

    def __init__(self, folder: Path, queries: CheckedQueries, chunk_size: int) -> None:
        self.folder = folder
        self._queries = queries
        self._chunk_size = chunk_size

    def num_chunks(self) -> int:
        """Number of whole chunks; they follow one another from the first."""
        return next(number for number in itertools.count() if not self._chunk(number).is_file())

    def num_routes(self) -> int:
        """Number of routes in the whole chunks."""
        return min(self.num_chunks() * self._chunk_size, self._queries.number)

    def begin(self, config: RouteConfig, output: Path) -> RouteConfig:
        """Say in the folder what its routes are of, or check that they are of the same; return the config to route by.

        In it the number formats are those of the first chunk: what `auto` means is measured, and could change.
        """
        about, known = _describe(config, self._queries), self._read_about(output)
        if self.num_chunks() and known is not None:
            for what in _WORDS:
                if different := describe_differences(known[what], about[what]):
                    raise ValueError(
                        f"output must be another file, got {str(output)!r}: {self.folder} holds routes of another "
                        f"{_WORDS[what]} ({', '.join(different)}); to start anew, remove that folder"
                    )
            logger.info("going on after %s of %s queries", f"{self.num_routes():,}", f"{self._queries.number:,}")
        else:
            known = about | {"formats": _choose_formats(config)}
            write_checked(self.folder / ABOUT, json.dumps(known, indent=2, ensure_ascii=False) + "\n")
        formats = known["formats"]
        base_model = replace(config.base_model, dtype=formats["base_model"])
        return replace(config, base_model=base_model, inference=replace(config.inference, dtype=formats["inference"]))

    def add(self, answers: list[Row]) -> None:
        """Write the routes of the next chunk."""
        number = self.num_chunks()
        content = self._queries.row_format.encode(answers, is_first=number == 0)
        with self._telling():
            write_bytes(self._chunk(number), content)

    def join(self, output: Path) -> None:
        """Write the output out of all chunks."""
        with self._telling():
            self._queries.row_format.join(map(self._chunk, range(self.num_chunks())), output)

    def leave(self, *, is_interrupted: bool) -> None:
        """Remove a folder without routes; after Ctrl-C say that the routes of another one stay."""
        if not self.num_chunks():
            remove_folder(self.folder)
        elif is_interrupted:
            print(f"interrupted: {self._kept()}", file=sys.stderr)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(f"output could not be written: {error}; {self._kept()}") from error

    def _kept(self) -> str:
        num, all_queries = self.num_routes(), self._queries.number
        return f"{num:,} of {all_queries:,} routes are in {self.folder}, where the same command goes on"

    def _chunk(self, number: int) -> Path:
        return self.folder / f"{number:06d}{self._queries.row_format.suffix or '.jsonl'}"

    def _read_about(self, output: Path) -> dict[str, Any] | None:
        remove_leftovers(self.folder)
        if (self.folder / ABOUT).is_file():
            known: dict[str, Any] = json.loads(read_checked(self.folder / ABOUT))
            return known
        if others := sorted({path.name for path in self.folder.iterdir()} - {LOCK, CHECKSUMS}):
            raise ValueError(
                f"output must be a file for which {self.folder} is free, got {str(output)!r}: that folder holds "
                f"{others[0]} and no {ABOUT}"
            )
        return None


def _describe(config: RouteConfig, queries: CheckedQueries) -> dict[str, Any]:
    """Return what the routes depend on, and under `names` what a person calls it."""
    file, folder = queries.file, RunFolder(Path(config.run_dir))
    settings = redact_names(config_dict(config))
    weights = sorted(path for path in folder.weights.rglob("*") if path.is_file())
    made_of = [folder.path / "router.json", *weights]
    return {
        "names": {"input": file.shown, "run": config.run_dir, "queries": queries.number},
        "input": {"bytes": file.path.stat().st_size, "sha256": _hash_file(file.path), "suffix": file.path.suffix},
        "run": {"weights": hashlib.sha256("".join(map(_hash_file, made_of)).encode()).hexdigest(), "code": code_hash()},
        "settings": {key: settings[key] for key in _SETTINGS},
    }


def _choose_formats(config: RouteConfig) -> dict[str, Any]:
    from causal_lm_router.models.precision import resolve_precision

    resolved = resolve_precision(config)
    return {"base_model": resolved.base_model.dtype, "inference": resolved.inference.dtype}


def _hash_file(path: Path) -> str:
    content = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            content.update(block)
    return content.hexdigest()
