"""Route queries with a run: one from the command line, or a file of them.

causal-lm-router route run_dir=outputs/quickstart/2026-01-31_12-00-00 query="What is 17 times 23?"
causal-lm-router route run_dir=... input=queries.jsonl output=routes.jsonl
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from causal_lm_router.commands.hydra_command import run_command
from causal_lm_router.config import RouteConfig
from causal_lm_router.files import write_text
from causal_lm_router.routing import check_query


def main() -> None:
    """Run the `route` command."""
    run_command("route", RouteConfig, _job, on_run=True)


def _job(config: RouteConfig) -> None:
    # Queries and output are checked before the engine starts, which takes half a minute.
    rows = read_queries(config)
    if config.output is not None and not Path(config.output).absolute().parent.is_dir():
        raise FileNotFoundError(f"output must be a file in a folder that exists, got {config.output!r}")
    from causal_lm_router.runs.router import CausalLMRouter

    with _stdout_for_routes(), CausalLMRouter.from_run(config.run_dir, config) as router:
        routes = router.route_batch(rows)
    if config.query is not None and config.output is None:
        _print_route(routes[0])
        return
    text = "".join(json.dumps(route, ensure_ascii=False) + "\n" for route in routes)
    if config.output is None:
        sys.stdout.write(text)
        return
    write_text(Path(config.output), text)
    print(f"{len(routes)} {'route' if len(routes) == 1 else 'routes'} in {config.output}")


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
def _stdout_for_routes() -> Iterator[None]:
    """Keep standard output for the routes, so that it can be piped on: what libraries write goes to stderr.

    Below Python too: native code, child processes and handlers that hold the stream write to the descriptor.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _print_route(route: Mapping[str, Any]) -> None:
    """Print the LLM to call; where there is none, say why on standard error and leave with status 1."""
    if route["model_name"] is None:
        print(f"parse failure ({route['parse_failure']}): {route['generation']!r}", file=sys.stderr)
        raise SystemExit(1)
    print(route["model_name"])


if __name__ == "__main__":
    main()
