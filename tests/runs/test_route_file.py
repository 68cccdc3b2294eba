"""Routing a file in chunks: formats, order, what is kept after a kill, what is refused, and memory."""

import csv
import datetime
import json
import os
import re
import signal
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from causal_lm_router.config import RouteConfig
from causal_lm_router.config.compose import compose_on_run
from causal_lm_router.data.sources.queries import QueryFile
from causal_lm_router.files import locks
from causal_lm_router.files.locks import FolderHeldError, hold_folder
from causal_lm_router.runs import route_file as module
from causal_lm_router.runs.route_file import check_queries, print_routes, route_file
from causal_lm_router.runs.route_rows import BATCH_ROWS
from causal_lm_router.runs.router import CausalLMRouter

Row = dict[str, Any]
QUERIES = [{"query": f"What is {number}?", "id": number, "größe": f"a,b\n{number}"} for number in range(5)]


class StoppedError(Exception):
    """Ends the router of a test at a query, as a kill would."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries that a router, which answers with the query's length and loads nothing, was asked for."""
    asked: list[str] = []

    def answer(_: CausalLMRouter, rows: Sequence[Row]) -> list[Row]:
        if any(row["query"] == "stop" for row in rows):
            raise StoppedError
        asked.extend(row["query"] for row in rows)
        return [
            {**row, "model_name": f"llm-{len(row['query'])}", "parse_failure": None, "generation": "é"} for row in rows
        ]

    monkeypatch.setattr(CausalLMRouter, "route_batch", answer)
    return asked


@pytest.fixture
def config(smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RouteConfig]:
    """Function that returns the config of `route input=<first> output=<second> chunk_size=2 <overrides>`."""
    monkeypatch.chdir(tmp_path)

    def make(given: str, output: str, *overrides: str, run_dir: Path = smoke_run) -> RouteConfig:
        return compose_on_run("route", run_dir, [f"input={given}", f"output={output}", "chunk_size=2", *overrides])

    return make


def checked(config: RouteConfig) -> module.CheckedQueries:
    assert config.input is not None
    return check_queries(QueryFile(path=Path(config.input), max_chars=1000, shown=config.input), config)


def route(config: RouteConfig) -> None:
    route_file(checked(config), config)


def write_rows(path: str, rows: Sequence[Row]) -> None:
    if path.endswith(".parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    elif path.endswith(".csv"):
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_rows(path: str) -> list[Row]:
    if path.endswith(".parquet"):
        return list(parquet.read_table(path).to_pylist())
    if path.endswith(".csv"):
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n")[:-1]]


# Formats


@pytest.mark.parametrize("given", ["q.jsonl", "q.csv", "q.parquet"])
@pytest.mark.parametrize("output", ["r.jsonl", "r.csv", "r.parquet", "r"])
@pytest.mark.usefixtures("seen")
def test_every_format_in_and_out(given: str, output: str, config: Callable[..., RouteConfig], tmp_path: Path) -> None:
    write_rows(given, QUERIES)
    route(config(given, output))
    # A CSV has texts alone, and an empty cell for what is none.
    in_csv, out_csv = given.endswith(".csv"), output.endswith(".csv")
    answer = {"model_name": "llm-10", "parse_failure": "" if out_csv else None, "generation": "é"}
    expected = [{**row, "id": str(row["id"]) if in_csv or out_csv else row["id"], **answer} for row in QUERIES]
    assert read_rows(output) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([given, output]), "nothing else is left"


@pytest.mark.usefixtures("seen")
def test_parquet_keeps_types_and_other_formats_write_them_as_text(config: Callable[..., RouteConfig]) -> None:
    day, tags = datetime.date(2026, 1, 31), ["x", "y"]
    rows = [{"query": "a", "day": day, "tags": tags, "n": None, "x": float("nan")} for _ in range(3)]
    parquet.write_table(pyarrow.Table.from_pylist([*rows, {**rows[0], "n": 7}]), "q.parquet")
    for output in ("r.parquet", "r.jsonl", "r.csv"):
        route(config("q.parquet", output))
    types = parquet.read_schema("r.parquet")
    assert [str(types.field(name).type) for name in ("query", "day", "n")] == ["string", "date32[day]", "int64"]
    assert read_rows("r.jsonl")[3] == {
        "query": "a",
        "day": "2026-01-31",
        "tags": tags,
        "n": 7,
        "x": None,
        "model_name": "llm-1",
        "parse_failure": None,
        "generation": "é",
    }
    assert [row["tags"] for row in read_rows("r.csv")] == ['["x", "y"]'] * 4


@pytest.mark.usefixtures("seen")
def test_columns_are_those_of_all_rows(config: Callable[..., RouteConfig]) -> None:
    write_rows("q.jsonl", [{"query": "a"}, {"query": "b"}, {"query": "c", "id": 1.5, "model_name": "old"}])
    for output in ("r.csv", "r.parquet"):
        route(config("q.jsonl", output))
        assert list(read_rows(output)[0]) == ["query", "id", "model_name", "parse_failure", "generation"]
    assert [row["id"] for row in read_rows("r.parquet")] == [None, None, 1.5]
    assert [row["model_name"] for row in read_rows("r.parquet")] == ["llm-1"] * 3


def test_routes_have_predictions_in_every_format(config: Callable[..., RouteConfig], tmp_path: Path) -> None:
    """The run's own router: chunks that differ in nothing from the whole."""
    write_rows("q.jsonl", QUERIES)
    for output in ("r.jsonl", "r.csv", "r.parquet"):
        route(config("q.jsonl", output, "decoding=scored"))
    plain, table = read_rows("r.jsonl"), read_rows("r.parquet")
    assert table == plain
    assert [json.loads(row["predicted"]) for row in read_rows("r.csv")] == [row["predicted"] for row in plain]
    with CausalLMRouter.from_run(config("q.jsonl", "r").run_dir, overrides=["decoding=scored"]) as router:
        assert [row["model_name"] for row in router.route_batch(QUERIES)] == [row["model_name"] for row in plain]


# Rows that cannot be used


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.csv", b"query,x\na,1\n,2\n", "q.csv:3: query is empty"),
        ("q.csv", b"query,x\na,1\nb\n", "q.csv:3: the row must have 2 cells as the header does, got 1"),
        ("q.csv", b"query,x\na,1\n\xff,2\n", "q.csv:3: column 'query' has a byte that is not UTF-8"),
        ("q.csv", b"question,x\na,1\n", "q.csv: must have a column 'query', got the columns question, x"),
        ("q.csv", b"query\n", "input must hold a query, got 'q.csv'"),
        ("q.parquet", b"query\n", "q.parquet: the file must be a Parquet file: "),
        ("q.parquet", [{"query": "a"}, {"query": None}], "q.parquet: row 2: query must be a text, got NoneType"),
        ("q.parquet", [{"query": 7}], "q.parquet: row 1: query must be a text, got int"),
        ("q.parquet", [{"query": "a" * 1001}], "q.parquet: row 1: query has 1,001 characters"),
        (
            "q.parquet",
            [{"query": "a", "x": b"\x00"}],
            "input: rows 1 to 1: values must be such that JSON has where output is not Parquet, got bytes",
        ),
    ],
)
def test_bad_rows_name_their_place(
    name: str, content: Any, message: str, seen: list[str], config: Callable[..., RouteConfig]
) -> None:
    if isinstance(content, bytes):
        Path(name).write_bytes(content)
    else:
        write_rows(name, content)
    with pytest.raises(ValueError, match=re.escape(message)):
        route(config(name, "r.jsonl"))
    assert not seen
    assert not list(Path().glob("r*"))


@pytest.mark.parametrize("values", [[1, "a"], [[1], {"a": 1}]])
def test_a_column_of_several_types_is_no_parquet(
    values: list[Any], seen: list[str], config: Callable[..., RouteConfig]
) -> None:
    write_rows("q.jsonl", [{"query": "a", "x": value} for value in values])
    with pytest.raises(ValueError, match=r"rows 1 to 2: 'x' must have values of one type where output is Parquet"):
        route(config("q.jsonl", "r.parquet"))
    write_rows("q.jsonl", [*[{"query": "a", "x": values[0]}] * BATCH_ROWS, {"query": "a", "x": values[1]}])
    with pytest.raises(ValueError, match=r"rows 201 to 201: .*x.* must have values of one type"):
        route(config("q.jsonl", "r.parquet"))
    assert not seen


def test_an_input_that_shrinks_meanwhile(seen: list[str], config: Callable[..., RouteConfig]) -> None:
    write_rows("q.jsonl", QUERIES)
    queries = checked(config("q.jsonl", "r.jsonl"))
    write_rows("q.jsonl", QUERIES[:4])
    with pytest.raises(ValueError, match=r"input must stay as it is while it is routed, got a change of q\.jsonl"):
        route_file(queries, config("q.jsonl", "r.jsonl"))
    assert not Path("r.jsonl").exists()
    assert len(seen) == 4


# Going on


def stop_at(number: int, output: str, config: Callable[..., RouteConfig]) -> None:
    """Route until the router ends at the query of this number; the input is then the whole one."""
    write_rows("q.jsonl", QUERIES)
    answer = CausalLMRouter.route_batch

    def stop(router: CausalLMRouter, rows: Sequence[Row]) -> list[Row]:
        if any(row["id"] == number for row in rows):
            raise StoppedError
        return answer(router, rows)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(CausalLMRouter, "route_batch", stop)
        route(config("q.jsonl", output))


@pytest.mark.parametrize("output", ["r.jsonl", "r.csv", "r.parquet"])
def test_the_same_command_goes_on_where_it_ended(
    output: str, seen: list[str], config: Callable[..., RouteConfig], tmp_path: Path
) -> None:
    write_rows("q.jsonl", QUERIES)
    route(config("q.jsonl", f"whole-{output}"))
    seen.clear()
    stop_at(4, output, config)
    assert not Path(output).exists(), "the routes are not whole"
    about = json.loads((tmp_path / f"{output}.part" / "about.json").read_text(encoding="utf-8"))
    assert about["names"] | {"run": None} == {"input": "q.jsonl", "queries": 5, "run": None}
    assert about["input"]["bytes"] == Path("q.jsonl").stat().st_size
    route(config("q.jsonl", output))
    assert seen == [row["query"] for row in QUERIES], "each query once"
    assert Path(output).read_bytes() == Path(f"whole-{output}").read_bytes()
    assert not Path(f"{output}.part").exists()


def test_whole_chunks_need_no_router(seen: list[str], config: Callable[..., RouteConfig]) -> None:
    write_rows("q.jsonl", QUERIES)
    with pytest.MonkeyPatch.context() as patch:

        def fill_disk(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(module.RowFormat, "join", fill_disk)
        message = (
            r"output could not be written: .*No space left on device; 5 of 5 routes are in r\.jsonl\.part, where the"
        )
        with pytest.raises(OSError, match=message):
            route(config("q.jsonl", "r.jsonl"))
    seen.clear()
    route(config("q.jsonl", "r.jsonl"))
    assert (seen, len(read_rows("r.jsonl"))) == ([], 5)


def test_a_full_disk_keeps_the_chunks_before(
    seen: list[str], config: Callable[..., RouteConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows("q.jsonl", QUERIES)
    write = module.write_bytes

    def fill_disk(path: Path, content: bytes) -> None:
        if path.name.startswith("000001"):
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(module, "write_bytes", fill_disk)
    with pytest.raises(OSError, match=r"No space left on device; 2 of 5 routes are in r\.jsonl\.part"):
        route(config("q.jsonl", "r.jsonl"))
    monkeypatch.setattr(module, "write_bytes", write)
    route(config("q.jsonl", "r.jsonl"))
    assert seen == [row["query"] for row in [*QUERIES[:4], *QUERIES[2:]]]


def test_ctrl_c_says_what_is_kept(
    seen: list[str], config: Callable[..., RouteConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows("q.jsonl", QUERIES)
    answer = CausalLMRouter.route_batch

    def interrupt(router: CausalLMRouter, rows: Sequence[Row]) -> list[Row]:
        if len(seen) == 4:
            raise KeyboardInterrupt
        return answer(router, rows)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CausalLMRouter, "route_batch", interrupt)
        route(config("q.jsonl", "r.jsonl"))
    assert capsys.readouterr().err == (
        "interrupted: 4 of 5 routes are in r.jsonl.part, where the same command goes on\n"
    )


@pytest.mark.usefixtures("seen")
def test_another_input_run_or_setting_is_refused(
    config: Callable[..., RouteConfig], smoke_run: Path, tmp_path: Path
) -> None:
    stop_at(3, "r.jsonl", config)
    refused = r"output must be another file, got 'r\.jsonl': r\.jsonl\.part holds routes of another "
    with pytest.raises(
        ValueError, match=refused + r"setting \(decoding\.method='free' \(here 'trie'\)\); to start anew"
    ):
        route(config("q.jsonl", "r.jsonl", "decoding=trie"))
    with pytest.raises(ValueError, match=refused + r"setting \(chunk_size=2 \(here 3\)\)"):
        route(config("q.jsonl", "r.jsonl", "chunk_size=3"))
    write_rows("q.jsonl", QUERIES[:4])
    with pytest.raises(ValueError, match=refused + r"input \(bytes="):
        route(config("q.jsonl", "r.jsonl"))
    write_rows("q.jsonl", QUERIES)
    copy = tmp_path / "run"
    copy.mkdir()
    for path in (smoke_run / "config.yaml", smoke_run / "adapter"):
        (copy / path.name).symlink_to(path)
    (copy / "router.json").write_text((smoke_run / "router.json").read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=refused + r"run \(weights="):
        route(config("q.jsonl", "r.jsonl", run_dir=copy))
    # The same run at another place is the same.
    (copy / "router.json").write_text((smoke_run / "router.json").read_text(encoding="utf-8"), encoding="utf-8")
    route(config("q.jsonl", "r.jsonl", run_dir=copy))
    assert len(read_rows("r.jsonl")) == 5


def test_a_part_without_routes_is_begun_anew(seen: list[str], config: Callable[..., RouteConfig]) -> None:
    stop_at(0, "r.jsonl", config)
    assert not Path("r.jsonl.part").exists()
    # A kill leaves the folder.
    Path("r.jsonl.part").mkdir()
    Path("r.jsonl.part", "about.json").write_text("{}", encoding="utf-8")
    route(config("q.jsonl", "r.jsonl", "decoding=trie"))
    assert len(seen) == 5


def test_somebody_elses_folder_is_left_alone(seen: list[str], config: Callable[..., RouteConfig]) -> None:
    write_rows("q.jsonl", QUERIES)
    Path("r.jsonl.part").mkdir()
    Path("r.jsonl.part", "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ValueError, match=r"r\.jsonl\.part is free, got 'r\.jsonl': that folder holds mine\.txt"):
        route(config("q.jsonl", "r.jsonl"))
    assert not seen
    assert [path.name for path in Path("r.jsonl.part").iterdir()] == ["mine.txt"]


def test_two_commands_do_not_write_one_output(
    seen: list[str], config: Callable[..., RouteConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_SHORT_WAIT_S", 0.0)
    write_rows("q.jsonl", QUERIES)
    configured = config("q.jsonl", "r.jsonl")
    refused = r"output must be a folder in which nobody works, got r\.jsonl\.part: process"
    # A thread of this process stands for another one.
    with (
        hold_folder(Path("r.jsonl.part"), "output"),
        ThreadPoolExecutor(1) as other,
        pytest.raises(FolderHeldError, match=refused),
    ):
        other.submit(route, configured).result()
    assert not seen
    route(configured)
    assert len(seen) == 5


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_bytes(
    config: Callable[..., RouteConfig], forkserver: ForkServerContext
) -> None:
    """The run's own router, killed twice: while it routes the second chunk, and while it writes the third."""
    write_rows("q.jsonl", QUERIES)
    route(config("q.jsonl", "whole.jsonl", "decoding=scored"))
    for number, kept in ((1, ["000000.jsonl"]), (2, ["000000.jsonl", "000001.jsonl"])):
        command = forkserver.Process(
            target=_route_and_die, args=(config("q.jsonl", "r.jsonl", "decoding=scored"), number)
        )
        command.start()
        command.join()
        assert command.exitcode == -signal.SIGKILL
        assert sorted(path.name for path in Path("r.jsonl.part").glob("0*")) == kept
    assert not Path("r.jsonl").exists()
    route(config("q.jsonl", "r.jsonl", "decoding=scored"))
    assert Path("r.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert not Path("r.jsonl.part").exists()


def _route_and_die(config: RouteConfig, number: int) -> None:
    """Route until the chunk of this number has been routed, and die as it is written."""
    write = module.write_bytes

    def write_or_die(path: Path, content: bytes) -> None:
        if path.name.startswith(f"{number:06d}"):
            path.with_name(f".{path.name}.0123456789ab.tmp").write_bytes(content[:10])
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    module.write_bytes = write_or_die
    route(config)


# Streams


@pytest.mark.usefixtures("seen")
def test_routes_are_printed_chunk_by_chunk(config: Callable[..., RouteConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows("q.jsonl", QUERIES)
    configured, lines = config("q.jsonl", "r"), _Lines()
    queries = checked(configured)
    answer = CausalLMRouter.route_batch

    def look(router: CausalLMRouter, rows: Sequence[Row]) -> list[Row]:
        printed.append(len(lines.texts))
        return answer(router, rows)

    printed: list[int] = []
    monkeypatch.setattr(CausalLMRouter, "route_batch", look)
    print_routes(queries, configured, lines)  # type: ignore[arg-type]
    assert printed == [0, 2, 4], "a chunk is printed before the next one is routed"
    assert [json.loads(line)["query"] for line in lines.texts] == [row["query"] for row in QUERIES]


class _Lines:
    """A stream that keeps the lines written to it."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def writelines(self, lines: Iterator[str]) -> None:
        self.texts += lines

    def flush(self) -> None: ...


@pytest.mark.parametrize(("given", "output"), [("q.jsonl", "r.csv"), ("q.parquet", "r.parquet")])
def test_memory_does_not_grow_with_the_file(
    given: str, output: str, seen: list[str], config: Callable[..., RouteConfig]
) -> None:
    def peak(num_queries: int) -> int:
        rows = [{"query": f"{number}", "text": "x" * 3000} for number in range(num_queries)]
        if given.endswith(".parquet"):
            parquet.write_table(pyarrow.Table.from_pylist(rows), given, row_group_size=100, compression="none")
        else:
            write_rows(given, rows)
        del rows
        configured = config(given, output, "chunk_size=100")
        tracemalloc.start()
        try:
            route(configured)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    few = peak(1000)
    # 4.5 MB of rows more.
    assert peak(2500) < few + 2_000_000
    assert len(read_rows(output)) == 2500
