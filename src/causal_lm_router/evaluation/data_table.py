"""What a data config holds: sizes, tasks, scores by candidate, references and the leakage audit, in 80 columns."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from causal_lm_router.data.labels import best_single
from causal_lm_router.data.leakage import LeakageAudit, NearDuplicate, NearDuplicates
from causal_lm_router.data.split import RoutingSplits
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.evaluation.report import Reference
from causal_lm_router.routing import Candidate, Generation, ParsedRoute, RouteOutcome, RoutingExample, SkippedRow

MAX_TASKS = 30
MAX_SKIPPED_ROWS = 5


@dataclass(frozen=True, slots=True)
class CandidateSummary:
    """A candidate over the queries of all splits."""

    candidate: Candidate
    mean_score: float
    mean_cost: float | None
    """USD per query; None unless the costs of all queries are known."""
    best_share: float
    """Share of queries on which no candidate scores higher, ties included."""
    only_best_share: float
    """Share of queries on which every other candidate scores lower."""


@dataclass(frozen=True, slots=True)
class DataDescription:
    """The figures of a split data set; shares are over the queries of all splits."""

    num_queries: Mapping[str, int]
    """Split -> queries."""
    tasks: Mapping[str, Mapping[str, int]]
    """Task -> split -> queries, the largest task first."""
    candidates: tuple[CandidateSummary, ...]
    """One per candidate, in pool order."""
    single_best_share: float
    """Share of queries with one best candidate."""
    undecided_share: float
    """Share of queries on which all candidates score the same."""
    unsolved_share: float
    """Share of queries on which every candidate scores 0."""
    best_single: str
    """The candidate with the best mean score on the training queries."""
    references: Mapping[str, Reference]
    """Baselines on the test queries; {} without a test split."""
    audit: LeakageAudit
    skipped_rows: tuple[SkippedRow, ...]


def describe_data(splits: RoutingSplits) -> DataDescription:
    """Return the figures of `splits`."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    examples = [example for part in parts.values() for example in part]
    scores = np.array([[example.scores[name] for name in splits.candidate_names] for example in examples])
    is_best = scores == scores.max(axis=1, keepdims=True)
    single = best_single(splits.train, splits.pool)
    return DataDescription(
        num_queries={split: len(part) for split, part in parts.items()},
        tasks=_count_tasks(parts),
        candidates=_summarise(splits.pool, examples, scores, is_best),
        single_best_share=float((is_best.sum(axis=1) == 1).mean()),
        undecided_share=float(is_best.all(axis=1).mean()),
        unsolved_share=float((scores.max(axis=1) == 0).mean()),
        best_single=single,
        references=_references(splits, single),
        audit=splits.audit,
        skipped_rows=splits.skipped_rows,
    )


def print_data(splits: RoutingSplits, console: Console) -> None:
    """Print what `splits` hold: queries by task, scores and costs by candidate, references, leakage, skipped rows."""
    data = describe_data(splits)
    for table in (_task_table(data), _candidate_table(data), _baseline_table(data), _details_table(data)):
        console.print(table)
        console.print()
    for pair in (*data.audit.test.examples, *data.audit.validation.examples):
        console.print(_near_duplicate(pair), no_wrap=True, overflow="ellipsis")
    for row in data.skipped_rows[:MAX_SKIPPED_ROWS]:
        console.print(Text(f"skipped {row.location}: {row.reason}"))
    if len(data.skipped_rows) > MAX_SKIPPED_ROWS:
        console.print(Text(f"skipped {len(data.skipped_rows) - MAX_SKIPPED_ROWS:,} more rows"))


def _count_tasks(parts: Mapping[str, Sequence[RoutingExample]]) -> dict[str, dict[str, int]]:
    counts = {split: Counter(example.task for example in part) for split, part in parts.items()}
    totals = sum(counts.values(), Counter[str]())
    return {task: {split: counts[split][task] for split in parts} for task, _ in totals.most_common()}


def _summarise(
    pool: Sequence[Candidate],
    examples: Sequence[RoutingExample],
    scores: NDArray[np.float64],
    is_best: NDArray[np.bool_],
) -> tuple[CandidateSummary, ...]:
    is_only_best = is_best & (is_best.sum(axis=1, keepdims=True) == 1)
    known = [example.costs for example in examples if example.costs is not None]
    costs = {
        one.name: float(np.mean([row[one.name] for row in known])) if len(known) == len(examples) else None
        for one in pool
    }
    means = zip(scores.mean(axis=0), is_best.mean(axis=0), is_only_best.mean(axis=0), strict=True)
    return tuple(
        CandidateSummary(one, float(score), costs[one.name], float(best), float(only_best))
        for one, (score, best, only_best) in zip(pool, means, strict=True)
    )


def _references(splits: RoutingSplits, single: str) -> Mapping[str, Reference]:
    """A report's references do not depend on the routes: those of always calling best single serve."""
    if not splits.test:
        return {}
    route = ParsedRoute(single)
    outcomes = [RouteOutcome(example, single, Generation("", "stop"), route, single) for example in splits.test]
    return evaluate_outcomes(outcomes, splits.candidate_names, single, queries_per_second=None).references


def _task_table(data: DataDescription) -> Table:
    table = _table("Queries", "Task", *(split.capitalize() for split in data.num_queries))
    table.add_row("all", *(f"{num:,}" for num in data.num_queries.values()), style="bold", end_section=True)
    tasks = list(data.tasks.items())
    for task, counts in tasks[:MAX_TASKS]:
        table.add_row(Text(task), *(f"{num:,}" for num in counts.values()))
    if len(tasks) > MAX_TASKS:
        hidden = [sum(counts[split] for _, counts in tasks[MAX_TASKS:]) for split in data.num_queries]
        table.add_row(f"{len(tasks) - MAX_TASKS:,} more tasks", *(f"{num:,}" for num in hidden), style="dim")
    return table


def _candidate_table(data: DataDescription) -> Table:
    prices = "USD per 1M\ntokens in/out"
    table = _table("Candidates", "Name", prices, "USD per\n1,000", "Mean\nscore", "Best or\ntied", "Alone\nbest")
    for one in data.candidates:
        table.add_row(
            Text(one.candidate.name, style="bold" if one.candidate.name == data.best_single else ""),
            f"{_price(one.candidate.input_price)}/{_price(one.candidate.output_price)}",
            _cost(one.mean_cost),
            f"{one.mean_score:.3f}",
            f"{one.best_share:.1%}",
            f"{one.only_best_share:.1%}",
        )
    return table


def _baseline_table(data: DataDescription) -> Table:
    title = f"Baselines on {data.num_queries['test']:,} test queries"
    table = _table(title, "Who chooses", "Mean score", "Routing\naccuracy", "USD per\n1,000")
    explanations = {
        "random": ("random", "any LLM, by lot"),
        "best_single": ("best single", f"always {data.best_single}"),
        "oracle": ("oracle", "best LLM, in hindsight"),
        "bayes": ("best possible", "highest expected score"),
    }
    for name, reference in data.references.items():
        table.add_row(
            _two_lines(*explanations[name]),
            _with_interval(reference.mean_score, ".3f"),
            _with_interval(reference.routing_accuracy, ".1%"),
            _cost(None if reference.mean_cost is None else reference.mean_cost.value),
        )
    return table


def _details_table(data: DataDescription) -> Table:
    audit = data.audit
    duplicates = (
        f"{audit.exact_duplicates:,} exact, {audit.normalised_duplicates:,} up to case and white space; "
        f"{audit.conflicting_duplicates:,} of them with other scores"
    )
    source_leaks = audit.source_test_in_train
    rows = {
        "Queries with one best candidate": f"{data.single_best_share:.1%}",
        "Queries all score the same on": f"{data.undecided_share:.1%}",
        "Queries all score 0 on": f"{data.unsolved_share:.1%}",
        "Queries read, distinct": f"{audit.num_read:,}, {audit.num_distinct:,}",
        "Duplicates left out": duplicates,
        "Source's test queries in its train": "no splits in the source"
        if source_leaks is None
        else f"{source_leaks:,}",
        "Test queries much like one in train": _near_duplicates(audit.test, audit.near_duplicate_threshold),
        "Validation queries much like one": _near_duplicates(audit.validation, audit.near_duplicate_threshold),
        "Rows skipped": f"{len(data.skipped_rows):,}",
    }
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _near_duplicates(found: NearDuplicates, threshold: float) -> str:
    return f"{found.num_found:,} of {found.num_checked:,} (Jaccard >= {threshold:g})"


def _near_duplicate(pair: NearDuplicate) -> Text:
    heading = f"{pair.split} {pair.query_id} beside train {pair.train_query_id}: similarity {pair.similarity:.3f}"
    return Text.assemble(heading, (f"\n  {pair.query}\n  {pair.train_query}", "dim"))


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def _price(price: float | None) -> str:
    return "?" if price is None else f"{price:g}"


def _cost(cost: float | None) -> str:
    """USD per 1,000 queries; below 0.1 three digits that count."""
    if cost is None:
        return "unknown"
    return f"{1000 * cost:.3g}" if cost < 1e-4 else f"{1000 * cost:,.3f}"


def _with_interval(figure: Estimate, spec: str) -> Text:
    if figure.low is None or figure.high is None:
        return Text(format(figure.value, spec))
    return _two_lines(format(figure.value, spec), f"[{figure.low:{spec}}, {figure.high:{spec}}]")


def _two_lines(first: str, second: str) -> Text:
    return Text.assemble(first, (f"\n{second}", "dim"))
