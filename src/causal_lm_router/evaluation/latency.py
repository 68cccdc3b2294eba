"""Latency: how long a call that routes one query or a batch takes, while one thread asks or several do."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.table import Table

BATCH_SIZES, NUM_THREADS = (1, 8, 32), (1, 4)
"""What `evaluate latency_calls=...` measures: each number of queries a call under each number of threads."""
CALLS_FOR_P95, CALLS_FOR_P99 = 20, 100
"""With fewer calls, fewer than one of them would lie above the percentile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Percentiles of the time from a call to its routes; each thread calls again as soon as it has its routes."""

    batch_size: int
    """Queries of a call."""
    num_threads: int
    num_calls: int
    """Timed calls of all threads together."""
    p50_seconds: float
    p95_seconds: float | None
    """None below `CALLS_FOR_P95` calls."""
    p99_seconds: float | None
    """None below `CALLS_FOR_P99` calls."""
    queries_per_second: float
    """Throughput of all threads together."""


def measure_latency(
    route: Callable[[Sequence[str]], object],
    queries: Sequence[str],
    num_calls: int,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    num_threads: Sequence[int] = NUM_THREADS,
) -> tuple[Latency, ...]:
    """Return the latency of `route`, which several threads may call, for each batch size and number of threads.

    No query is asked twice: each has its number in front, so that an engine that caches prompts has the beginning
    that all prompts share, as in use, and nothing more. A call that is not timed comes before each measurement.
    """
    fresh = (f"{number}. {query}" for number, query in enumerate(itertools.cycle(queries), start=1))
    measured = itertools.product(batch_sizes, num_threads)
    return tuple(_measure(route, fresh, batch_size, threads, num_calls) for batch_size, threads in measured)


def _measure(
    route: Callable[[Sequence[str]], object], queries: Iterator[str], batch_size: int, threads: int, num_calls: int
) -> Latency:
    warm_up, *batches = [list(itertools.islice(queries, batch_size)) for _ in range(num_calls + 1)]
    route(warm_up)

    def time_call(batch: Sequence[str]) -> float:
        start = time.perf_counter()
        route(batch)
        return time.perf_counter() - start

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        seconds = list(pool.map(time_call, batches))
    whole = time.perf_counter() - start
    # A time that was measured, which at least that share of the calls did not exceed.
    p50, p95, p99 = (float(value) for value in np.percentile(seconds, [50, 95, 99], method="inverted_cdf"))
    return Latency(
        batch_size=batch_size,
        num_threads=threads,
        num_calls=num_calls,
        p50_seconds=p50,
        p95_seconds=p95 if num_calls >= CALLS_FOR_P95 else None,
        p99_seconds=p99 if num_calls >= CALLS_FOR_P99 else None,
        queries_per_second=num_calls * batch_size / whole,
    )


def latency_table(latency: Sequence[Latency]) -> Table:
    """Return a row for each batch size and number of threads."""
    table = Table(title="Latency of a call", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for heading in ("Queries", "Threads", "Calls", "p50", "p95", "p99", "Queries/s"):
        table.add_column(heading, justify="right")
    for row in latency:
        table.add_row(*latency_cells(row))
    return table


def latency_cells(row: Latency) -> list[str]:
    """Return queries a call, threads, calls, the percentiles and queries a second as texts; "" is an unknown one."""
    percentiles = (row.p50_seconds, row.p95_seconds, row.p99_seconds)
    times = ["" if seconds is None else f"{1000 * seconds:,.0f} ms" for seconds in percentiles]
    counts = [f"{number:,}" for number in (row.batch_size, row.num_threads, row.num_calls)]
    return [*counts, *times, f"{row.queries_per_second:,.1f}"]
