"""Route queries with a run: one from the command line, a file of them, or one after the other as they are typed.

causal-lm-router route run_dir=outputs/quickstart/2026-01-31_12-00-00 query="What is 17 times 23?"
causal-lm-router route run_dir=... input=queries.parquet output=routes.jsonl
causal-lm-router route run_dir=...
"""

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hydra.core.hydra_config import HydraConfig

from causal_lm_router.commands.hydra_command import run_command
from causal_lm_router.config import Backend, RouteConfig
from causal_lm_router.data.sources.queries import QueryFile
from causal_lm_router.files.writing import temporary_folder
from causal_lm_router.routing import check_query
from causal_lm_router.runs.route_file import check_queries, print_routes, route_file, write_answers
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
    # Output and queries are checked before the engine starts, which takes half a minute.
    if config.output is not None and not Path(config.output).absolute().parent.is_dir():
        raise FileNotFoundError(f"output must be a file in a folder that exists, got {config.output!r}")
    RunFolder(Path(config.run_dir)).read_metadata()
    if config.input is not None:
        _route_input(config)
    elif config.query is not None:
        _route_query(config, check_query(config.query, config.data.max_query_chars))
    elif not sys.stdin.isatty():
        raise ValueError('query must be given where no one can type it: query="...", input=<file>, or input=-')
    else:
        with _stdout_for_routes() as stdout, _open_router(config) as router:
            answer_prompt(router, sys.stdin, stdout, config.data.max_query_chars)


def _route_query(config: RouteConfig, query: str) -> None:
    with name_work("routing"), _stdout_for_routes(), _open_router(config) as router:
        answers = router.route_batch([{"query": query}])
    if config.output is not None:
        write_answers(answers, config)
        print(f"1 route in {config.output}")
    elif not _print_route(answers[0], sys.stdout):
        raise SystemExit(1)


def _route_input(config: RouteConfig) -> None:
    with name_work("routing"), open_queries(config) as file:
        queries = check_queries(file, config)
        config = _choose_backend(config, queries.number, HydraConfig.get().overrides.task)
        with _stdout_for_routes() as stdout:
            if config.output is None:
                print_routes(queries, config, stdout)
                return
            route_file(queries, config)
    print(f"{queries.number:,} {'route' if queries.number == 1 else 'routes'} in {config.output}")


@contextlib.contextmanager
def open_queries(config: RouteConfig) -> Iterator[QueryFile]:
    """Yield the file to route; what comes on standard input is kept in a temporary one, since it is read twice.

    Raises:
        FileNotFoundError: the file is missing.
    """
    assert config.input is not None
    path, max_chars = Path(config.input), config.data.max_query_chars
    if config.input != "-":
        if not path.is_file():
            raise FileNotFoundError(
                f"input must be a file, or - for standard input, got {config.input!r}: no such file"
            )
        yield QueryFile(path=path, max_chars=max_chars, shown=config.input)
        return
    with temporary_folder() as folder:
        path = folder / "queries"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield QueryFile(path=path, max_chars=max_chars, shown="standard input")


def _open_router(config: RouteConfig) -> "CausalLMRouter":
    from causal_lm_router.runs.router import CausalLMRouter

    config = _choose_backend(config, 1, HydraConfig.get().overrides.task)
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
