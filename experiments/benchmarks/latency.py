"""Latency of a run's router: single routes and batches, while one thread or several share it, for both backends.

    python experiments/benchmarks/latency.py run_dir=outputs/... [--calls 100 20 20] [--threads 1 2 4 8]
        [--backends vllm transformers] [--output latency.json] [decoding=trie ...]

Closed loop: each thread calls again as soon as it has its routes. Queries are those of the run's evaluation, each with
a number in front, so that no engine has seen it. --calls has the timed calls of a single route, of a batch of 8 and of
one of 32. Prints a table; p95 needs 20 calls, p99 100.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from causal_lm_router import CausalLMRouter
from causal_lm_router.evaluation.latency import BATCH_SIZES, Latency, latency_cells, measure_latency


def main() -> None:
    """Measure every backend and print the table."""
    arguments = _parser().parse_args()
    [run_dir] = [Path(word.removeprefix("run_dir=")) for word in arguments.settings if word.startswith("run_dir=")]
    overrides = [word for word in arguments.settings if not word.startswith("run_dir=")]
    lines = (run_dir / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()
    queries = [json.loads(line)["query"] for line in lines]
    measured = {}
    print("| backend | queries a call | threads | calls | p50 | p95 | p99 | queries/s |\n" + "| --- " * 8 + "|")
    for backend in arguments.backends:
        rows = measured[backend] = measure_backend(run_dir, [f"inference={backend}", *overrides], queries, arguments)
        for row in rows:
            print(f"| {' | '.join([backend, *latency_cells(row)])} |", flush=True)
    if arguments.output is not None:
        plain = {backend: [asdict(row) for row in rows] for backend, rows in measured.items()}
        arguments.output.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def measure_backend(
    run_dir: Path, overrides: list[str], queries: list[str], arguments: argparse.Namespace
) -> list[Latency]:
    """Return the latencies of one router, shared by all threads."""
    rows: list[Latency] = []
    with CausalLMRouter.from_run(run_dir, overrides=overrides) as router:
        for batch_size, num_calls in zip(BATCH_SIZES, arguments.calls, strict=True):
            rows += measure_latency(router.route, queries, num_calls, [batch_size], arguments.threads)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("settings", nargs="+", metavar="SETTING", help="run_dir=..., and overrides that route takes")
    parser.add_argument("--calls", type=int, nargs=3, default=[100, 20, 20])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--backends", nargs="+", default=["vllm", "transformers"])
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    return parser


if __name__ == "__main__":
    main()
