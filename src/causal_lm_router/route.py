"""Route queries with a run: one from the command line, or a file of them.

causal-lm-router route run_dir=outputs/quickstart/2026-01-31_12-00-00 query="What is 17 times 23?"
causal-lm-router route run_dir=... input=queries.jsonl output=routes.jsonl
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from causal_lm_router.atomic import write_text
from causal_lm_router.command import run_command
from causal_lm_router.config import RouteConfig


def main() -> None:
    """Run the `route` command."""
    run_command("route", RouteConfig, _job, on_run=True)


def _job(config: RouteConfig) -> None:
    rows = read_queries(config)
    if config.output is not None and not Path(config.output).absolute().parent.is_dir():
        raise FileNotFoundError(f"output={config.output}: its folder does not exist")
    from causal_lm_router.router import CausalLMRouter

    # Standard output carries the routes alone, so that it can be piped on; whatever a library prints goes to the other.
    with contextlib.redirect_stdout(sys.stderr), CausalLMRouter.from_run(config.run_dir, config) as router:
        routes = router.route_batch(rows)
    if config.query is not None:
        route = routes[0]
        print(route["model_name"] or f"parse failure ({route['parse_failure']}): {route['generation']!r}")
        return
    text = "".join(json.dumps(route, ensure_ascii=False) + "\n" for route in routes)
    if config.output is None:
        sys.stdout.write(text)
        return
    write_text(Path(config.output), text)
    print(f"{len(routes)} routes in {config.output}")


def read_queries(config: RouteConfig) -> list[dict[str, Any]]:
    """Return the queries to route as dictionaries with the text under `query`.

    Raises:
        ValueError: a row that is no JSON object with a text under `query`, or no query at all.
        FileNotFoundError: the input file is missing.
    """
    if config.query is not None:
        return [{"query": config.query}]
    assert config.input is not None
    rows = list(_read_rows(config.input))
    if not rows:
        raise ValueError(f"input={config.input}: holds no query")
    return rows


def _read_rows(source: str) -> Iterator[dict[str, Any]]:
    from causal_lm_router.sources.strict_json import decode_line, read_lines

    if source == "-":
        yield from ({"query": line.rstrip("\n")} for line in sys.stdin if line.strip())
        return
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"input={source}: no such file")
    for number, line in read_lines(path):
        if path.suffix != ".jsonl":
            yield {"query": line.decode("utf-8")}
            continue
        try:
            row = decode_line(line)
            if not isinstance(row.get("query"), str):
                raise ValueError(f"query is {row.get('query')!r}, not a text")
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        yield row


if __name__ == "__main__":
    main()
