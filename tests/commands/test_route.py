"""The `route` command: queries from the command line, files and standard input; routes alone on standard output."""

import dataclasses
import io
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from causal_lm_router.commands import route
from causal_lm_router.commands.route import FEW_QUERIES, answer_prompt
from causal_lm_router.config import Backend
from causal_lm_router.runs.router import CausalLMRouter
from causal_lm_router.runs.run_folder import RunFolder

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(smoke_run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Function that calls `route run_dir=<the run> <arguments>`: exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, run_dir: Path = smoke_run) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["route", f"run_dir={run_dir}", *arguments])
        capfd.readouterr()
        status = 0
        try:
            route.main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        return status, *capfd.readouterr()

    return call


@pytest.fixture
def fallback(smoke_run: Path) -> str:
    return f"parsing.fallback_candidate={RunFolder(smoke_run).read_metadata().candidate_names[3]}"


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail as soon as a base model would be loaded: mistakes must show before."""

    def load(*_: Any) -> None:
        raise AssertionError("loads a base model first")

    monkeypatch.setattr(CausalLMRouter, "_load", load)


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


# One query


def test_one_query_prints_the_llm_alone(call: Call, fallback: str) -> None:
    status, out, _ = call("query=What is 17 times 23?", fallback)
    assert (status, out) == (0, f"{fallback.split('=')[1]}\n")


def test_one_query_that_cannot_be_routed_prints_no_llm(call: Call) -> None:
    status, out, err = call("query=What is 17 times 23?")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("parse failure (")


def test_one_query_writes_the_file_it_is_given(call: Call, fallback: str) -> None:
    status, out, _ = call("query=What is 17 times 23?", "output=route.jsonl", fallback)
    assert (status, out) == (0, "1 route in route.jsonl\n")
    (row,) = rows(Path("route.jsonl").read_text(encoding="utf-8"))
    assert (row["query"], row["model_name"]) == ("What is 17 times 23?", fallback.split("=")[1])


def test_a_query_is_taken_as_it_is_typed(call: Call, fallback: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    answer = {"model_name": "x", "parse_failure": None, "generation": "x"}
    monkeypatch.setattr(CausalLMRouter, "route_batch", lambda _, batch: seen.extend(batch) or [answer])
    query = "Is {a, b} = [c], ${d}: 'e' \"f\" \\ g=h #i, größer?"
    assert call(f"query={query}")[:2] == (0, "x\n")
    assert seen == [{"query": query}]


def test_a_run_with_vllm_routes_a_query_without_it(call: Call, fallback: str, smoke_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(smoke_run, tmp_path / "run", ignore=shutil.ignore_patterns("checksums.txt")))
    config = (folder / "config.yaml").read_text(encoding="utf-8")
    (folder / "config.yaml").write_text(config.replace("backend: transformers", "backend: vllm"), encoding="utf-8")
    status, out, err = call("query=What is 17 times 23?", fallback, run_dir=folder)
    assert (status, out) == (0, f"{fallback.split('=')[1]}\n"), "standard output is for the LLM alone"
    assert "generating with transformers" in err


# Queries that are typed


def test_without_a_query_one_router_answers_line_by_line(
    smoke_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    load = CausalLMRouter._load
    monkeypatch.setattr(CausalLMRouter, "_load", lambda router: loaded.append(load(router)) or loaded[-1])
    lines, routes = io.StringIO("What is 17 times 23?\n\n  \n" + "x" * 101 + "\nWhy {a}?"), io.StringIO()
    with CausalLMRouter.from_run(smoke_run) as router:
        router.config.parsing.fallback_candidate = "aster-mini"
        answer_prompt(router, lines, routes, 100)
        assert routes.getvalue() == "aster-mini\n" * 2
        assert loaded[0] is loaded[1], "the second query starts nothing"
        router.config.parsing.fallback_candidate = None
        answer_prompt(router, io.StringIO("What?\n"), routes, 100)
    assert routes.getvalue() == "aster-mini\n" * 2
    err = capsys.readouterr().err
    assert err.count("query: ") == 6 + 2, "one for each line, and one that the end answers"
    assert "query: error: query has 101 characters, data.max_query_chars allows 100\n" in err
    assert err.count("query: parse failure (") == 1


def test_a_terminal_without_a_query_asks_for_them(smoke_run: Path, fallback: str) -> None:
    keyboard, terminal = pty.openpty()
    command = [sys.executable, "-m", "causal_lm_router.commands.route", f"run_dir={smoke_run}", fallback]
    os.write(keyboard, b"What is 17 times 23?\nAnd 18?\n\x04")
    done = subprocess.run(command, stdin=terminal, capture_output=True, text=True, check=True)
    assert done.stdout == f"{fallback.split('=')[1]}\n" * 2
    assert done.stderr.count("query: ") == 3


# The backend


@pytest.mark.parametrize(
    ("arguments", "changes", "num_queries", "on_gpu", "backend"),
    [
        ([], {}, 1, False, "transformers"),
        (["inference.temperature=0"], {}, FEW_QUERIES, False, "transformers"),
        ([], {}, FEW_QUERIES + 1, False, "vllm"),
        ([], {}, 1, True, "vllm"),
        (["inference=vllm"], {}, 1, False, "vllm"),
        (["inference.backend=vllm"], {}, 1, False, "vllm"),
        ([], {"engine_args": {"max_num_seqs": 1}}, 1, False, "vllm"),
        ([], {"sampling_args": {"min_p": 0.1}}, 1, False, "vllm"),
        ([], {"backend": Backend.transformers}, 1000, False, "transformers"),
    ],
)
def test_few_queries_on_a_cpu_start_no_engine(
    arguments: list[str],
    changes: dict[str, Any],
    num_queries: int,
    on_gpu: bool,
    backend: str,
    tiny_config: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    config = tiny_config("inference=vllm")
    config.inference = dataclasses.replace(config.inference, **changes)
    assert route._choose_backend(config, num_queries, ["run_dir=x", *arguments]).inference.backend.value == backend


# Files of queries


def test_jsonl_in_jsonl_out(call: Call, fallback: str, tmp_path: Path) -> None:
    queries = [{"query": f"What is {number}?", "task_name": "größe", "gt": number} for number in range(5)]
    lines = [json.dumps(query) for query in queries]
    Path("queries.jsonl").write_text("\ufeff" + "\n\n".join(lines) + "\r\n", encoding="utf-8")
    status, out, _ = call("input=queries.jsonl", fallback)
    assert status == 0
    assert [{key: row[key] for key in ("query", "task_name", "gt")} for row in rows(out)] == queries
    assert {row["model_name"] for row in rows(out)} == {fallback.split("=")[1]}
    assert all(row["parse_failure"] for row in rows(out))
    assert "größe" in out

    status, said, _ = call("input=queries.jsonl", "output=routes.jsonl", fallback)
    assert (status, said) == (0, "5 routes in routes.jsonl\n")
    assert Path("routes.jsonl").read_text(encoding="utf-8") == out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["queries.jsonl", "routes.jsonl"]


def test_text_file_holds_a_query_a_line(call: Call) -> None:
    Path("queries.txt").write_bytes("first, with {braces}\r\n\n  zweite Größe \nlast\u2028one".encode())
    status, out, _ = call("input=queries.txt")
    assert status == 0
    assert [row["query"] for row in rows(out)] == ["first, with {braces}", "  zweite Größe ", "last\u2028one"]
    assert {row["model_name"] for row in rows(out)} == {None}


def test_standard_input_holds_a_query_a_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("eins\n \nzwei ö\n".encode())))
    status, out, _ = call("input=-")
    assert status == 0
    assert [row["query"] for row in rows(out)] == ["eins", "zwei ö"]


def test_standard_output_holds_routes_and_nothing_else(smoke_run: Path, tmp_path: Path) -> None:
    """A process of its own, whose cache is empty: preparing the base model again is logged."""
    (tmp_path / "queries.jsonl").write_text('{"query": "a"}\n{"query": "b"}\n', encoding="utf-8")
    command = [sys.executable, "-m", "causal_lm_router.commands.route", f"run_dir={smoke_run}", "input=queries.jsonl"]
    environment = os.environ | {"CAUSAL_LM_ROUTER_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert [row["query"] for row in rows(done.stdout)] == ["a", "b"]
    assert "preparing base model tiny-llama" in done.stderr


# Mistakes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.jsonl", b'{"query": "a"}\n{"query": "b"\n', "q.jsonl:2: broken JSON: "),
        ("q.jsonl", b'{"query": "a"}\n\n{"query": ""}\n', "q.jsonl:3: query is empty"),
        ("q.jsonl", b'{"question": "a"}\n', "q.jsonl:1: query must be a text, got NoneType"),
        ("q.jsonl", b'{"query": ["a"]}\n', "q.jsonl:1: query must be a text, got list"),
        ("q.jsonl", b'"a"\n', "q.jsonl:1: the row must be an object, got str"),
        ("q.jsonl", b'{"query": "a", "query": "b"}\n', "q.jsonl:1: key 'query' appears twice"),
        ("q.jsonl", b'{"query": "a", "x": NaN}\n', "q.jsonl:1: NaN is not a JSON number"),
        ("q.jsonl", b'{"query": "\xff"}\n', "q.jsonl:1: not UTF-8: byte 0xff at offset 11"),
        (
            "q.jsonl",
            b'{"query": "' + b"x" * 100_001 + b'"}\n',
            "q.jsonl:1: query has 100,001 characters, data.max_quer",
        ),
        (
            "q.txt",
            b"a\n" + b"x" * 100_001,
            "q.txt:2: query has 100,001 characters, data.max_query_chars allows 100,000",
        ),
        ("q.txt", b"a\nb\n\xff\n", "q.txt:3: "),
        ("q.jsonl", b"\n\n", "input must hold a query, got 'q.jsonl'"),
        ("q.txt", b"", "input must hold a query, got 'q.txt'"),
    ],
)
@pytest.mark.usefixtures("no_loading")
def test_bad_rows_name_file_and_line_and_write_nothing(name: str, content: bytes, message: str, call: Call) -> None:
    Path(name).write_bytes(content)
    status, out, err = call(f"input={name}", "output=routes.jsonl")
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert not Path("routes.jsonl").exists()


@pytest.mark.usefixtures("no_loading")
def test_bad_line_of_standard_input(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"fine\n\xff\n")))
    assert call("input=-")[2].startswith("error: standard input:2: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "query must be given where no one can type it: "),
        (["output=routes.jsonl"], "output must be null unless query=... or input=... is given, got 'routes.jsonl'"),
        (
            ["query=a", "input=q.txt"],
            "query, input must be given one at a time: query=... or input=..., got {'query': 'a', ",
        ),
        (["query=a", "num_actors=2"], "num_actors must be null, or at least 1 beside input=..., got 2"),
        (["query="], "query is empty"),
        (["query= "], "query is empty"),
        (["input=absent.jsonl"], "input must be a file, or - for standard input, got 'absent.jsonl': no such file"),
        (
            ["input=q.txt", "output=no/such/folder.jsonl"],
            "output must be a file in a folder that exists, got 'no/such/folder.jsonl'",
        ),
        (["query=a", "outputs=x"], "Could not override 'outputs'; Key 'outputs' not in 'RouteConfig' (key: outputs); "),
        (["query=a", "inference.temperature=-1"], "inference.temperature must be a number of at least 0, got -1.0"),
    ],
)
@pytest.mark.usefixtures("no_loading")
def test_mistakes_on_the_command_line(arguments: list[str], message: str, call: Call) -> None:
    Path("q.txt").write_text("a\n", encoding="utf-8")
    status, out, err = call(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_folder_without_a_run(call: Call, tmp_path: Path) -> None:
    status, out, err = call("query=a", run_dir=tmp_path)
    assert (status, out) == (1, "")
    assert err == f"error: run_dir must be a run folder, got {tmp_path}: no config.yaml there\n"
