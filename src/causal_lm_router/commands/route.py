"""Route queries with a run: one from the command line, a file of them, or one after the other as they are typed.

causal-lm-router route run_dir=outputs/quickstart/2026-01-31_12-00-00 query="What is 17 times 23?"
causal-lm-router route run_dir=... input=queries.jsonl output=routes.jsonl
causal-lm-router route run_dir=...
"""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hydra.core.hydra_config import HydraConfig

from causal_lm_router.commands.hydra_command import run_command
from causal_lm_router.config import Backend, RouteConfig
from causal_lm_router.files.writing import write_text
from causal_lm_router.routing import check_query
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.terminal import name_work

if TYPE_CHECKING:
    from causal_lm_router.runs.router import CausalLMRouter

logger = logging.getLogger(__name__)
FEW_QUERIES = 64
"""Transformers answers as many queries on a CPU before vLLM has started: on 2 busy cores 64 took SmolLM2-135M 25 s, and
vLLM's start 27 to 48 s. With more, vLLM's speed counts."""


def main() -> None:
    """Run the `route` command."""
    run_command("route", RouteConfig, _job, on_run=True)


def _job(config: RouteConfig) -> None:
    # Queries and output are checked before the engine starts, which takes half a minute.
    rows = None if config.query is None and config.input is None else read_queries(config)
    if rows is None and not sys.stdin.isatty():
        raise ValueError('query must be given where no one can type it: query="...", input=<file>, or input=-')
    if config.output is not None and not Path(config.output).absolute().parent.is_dir():
        raise FileNotFoundError(f"output must be a file in a folder that exists, got {config.output!r}")
    RunFolder(Path(config.run_dir)).read_metadata()
    num_queries = 1 if rows is None else len(rows)
    with name_work("routing"), _stdout_for_routes() as stdout, _open_router(config, num_queries) as router:
        if rows is None:
            answer_prompt(router, sys.stdin, stdout, config.data.max_query_chars)
            return
        routes = router.route_batch(rows)
    if config.query is not None and config.output is None:
        if not _print_route(routes[0], sys.stdout):
            raise SystemExit(1)
        return
    text = "".join(json.dumps(route, ensure_ascii=False) + "\n" for route in routes)
    if config.output is None:
        sys.stdout.write(text)
        return
    write_text(Path(config.output), text)
    print(f"{len(routes)} {'route' if len(routes) == 1 else 'routes'} in {config.output}")


def _open_router(config: RouteConfig, num_queries: int) -> "CausalLMRouter":
    from causal_lm_router.runs.router import CausalLMRouter

    config = _choose_backend(config, num_queries, HydraConfig.get().overrides.task)
    return CausalLMRouter.from_run(config.run_dir, config)


def _choose_backend(config: RouteConfig, num_queries: int, overrides: Sequence[str]) -> RouteConfig:
    """Return the config with transformers in the place of vLLM where that answers sooner: for few queries on a CPU.

    A backend that the command line names stays, and so does vLLM with arguments of its own.
    """
    inference = config.inference
    is_chosen = any(override.startswith(("inference=", "inference.backend=")) for override in overrides)
    if is_chosen or inference.backend is not Backend.vllm or inference.engine_args or inference.sampling_args:
        return config
    import torch

    if num_queries > FEW_QUERIES or torch.cuda.is_available():
        return config
    logger.info("generating with transformers, which needs no engine start; inference=vllm takes vLLM")
    return replace(config, inference=replace(inference, backend=Backend.transformers))


def answer_prompt(router: "CausalLMRouter", lines: TextIO, routes: TextIO, max_chars: int) -> None:
    """Ask for queries on standard error, read a line for each, and write the LLM to call to `routes` as it is found.

    Empty lines are asked again, what cannot be routed is told, and the end of the input (Ctrl-D) is the end.
    """
    while True:
        print("query: ", end="", file=sys.stderr, flush=True)
        line = lines.readline()
        if not line:
            print(file=sys.stderr)
            return
        if not line.strip():
            continue
        try:
            query = check_query(line.rstrip("\r\n"), max_chars)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        _print_route(router.route_single({"query": query}), routes)


def read_queries(config: RouteConfig) -> list[dict[str, Any]]:
    """Return the queries to route as dictionaries with the text under `query`.

    Raises:
        ValueError: a row that cannot be used, with file and line, or no query at all.
        FileNotFoundError: the input file is missing.
    """
    from causal_lm_router.data.sources.lines import split_lines
    from causal_lm_router.data.sources.queries import parse_queries, read_query_file

    max_chars = config.data.max_query_chars
    if config.query is not None:
        return [{"query": check_query(config.query, max_chars)}]
    assert config.input is not None
    if config.input == "-":
        lines = split_lines(sys.stdin.buffer, max_chars)
        rows = list(parse_queries(lines, "standard input", are_json=False, max_chars=max_chars))
    elif Path(config.input).is_file():
        rows = list(read_query_file(Path(config.input), max_chars))
    else:
        raise FileNotFoundError(f"input must be a file, or - for standard input, got {config.input!r}: no such file")
    if not rows:
        raise ValueError(f"input must hold a query, got {config.input!r}, which holds none")
    return rows


@contextlib.contextmanager
def _stdout_for_routes() -> Iterator[TextIO]:
    """Yield standard output for the routes alone, so that it can be piped on: what libraries write goes to stderr.

    Below Python too: native code, child processes and handlers that hold the stream write to the descriptor.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with open(kept, "w", encoding="utf-8", closefd=False) as stdout, contextlib.redirect_stdout(sys.stderr):
            yield stdout
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _print_route(route: Mapping[str, Any], routes: TextIO) -> bool:
    """Print the LLM to call and return True; where there is none, say why on standard error and return False."""
    if route["model_name"] is None:
        print(f"parse failure ({route['parse_failure']}): {route['generation']!r}", file=sys.stderr)
        return False
    print(route["model_name"], file=routes, flush=True)
    return True


if __name__ == "__main__":
    main()
