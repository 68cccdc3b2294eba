"""What a data config holds: sizes, tasks, scores by candidate, references and the leakage audit, in 80 columns."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from causal_lm_router.data.arrays import Bools, Floats, known_matrix, matrix
from causal_lm_router.data.data_warnings import warn_of_data
from causal_lm_router.data.labels import best_single
from causal_lm_router.data.leakage import LeakageAudit, NearDuplicate, NearDuplicates
from causal_lm_router.data.split import RoutingSplits
from causal_lm_router.data.train_means import train_means
from causal_lm_router.evaluation.formatting import (
    COST,
    PERCENT,
    REFERENCE_NAMES,
    SCORE,
    count,
    explain_reference,
    format_estimate,
    format_two_lines,
    two_lines,
    value_of,
)
from causal_lm_router.evaluation.references import evaluate_references, reference_choices
from causal_lm_router.evaluation.report import Reference
from causal_lm_router.routing import Candidate, RoutingExample, SkippedRow
from causal_lm_router.terminal import plain_text

MAX_TASKS = 30
MAX_SKIPPED_ROWS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDescription:
    """Sizes, scores and audit of a split data set; shares are over the queries of all splits."""

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
    """Name of a reference -> what it gets on the test queries; {} without a test split."""
    audit: LeakageAudit
    skipped_rows: tuple[SkippedRow, ...]


def describe_data(splits: RoutingSplits) -> DataDescription:
    """Return the description of `splits`."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    # The pool is described over all queries, references only on the test queries as in a report.
    examples = [example for part in parts.values() for example in part]
    names = splits.candidate_names
    scores = matrix([example.scores for example in examples], names)
    is_best = scores == scores.max(axis=1, keepdims=True)
    single = best_single(splits.train, splits.pool)
    return DataDescription(
        num_queries={split: len(part) for split, part in parts.items()},
        tasks=_count_tasks(parts),
        candidates=_summarise(splits.pool, scores, is_best, known_matrix([one.costs for one in examples], names)),
        single_best_share=float((is_best.sum(axis=1) == 1).mean()),
        undecided_share=float(is_best.all(axis=1).mean()),
        unsolved_share=float((scores.max(axis=1) == 0).mean()),
        best_single=single,
        references=_references(splits, single),
        audit=splits.audit,
        skipped_rows=splits.skipped_rows,
    )


def print_data(splits: RoutingSplits, console: Console) -> None:
    """Print what `splits` hold: warnings, queries by task, scores and costs, references, leakage, skipped rows."""
    for warning in warn_of_data(splits):
        console.print(plain_text(f"warning: {warning}\n", "bold"))
    data = describe_data(splits)
    for table in (_task_table(data), _candidate_table(data), _reference_table(data), _details_table(data)):
        console.print(table)
        console.print()
    # Some near duplicates in full: whether they matter is for the reader to judge.
    for pair in (*data.audit.test.examples, *data.audit.validation.examples):
        console.print(_near_duplicate(pair), no_wrap=True, overflow="ellipsis")
    # Skipped rows with their place in the source, so that they can be mended.
    for row in data.skipped_rows[:MAX_SKIPPED_ROWS]:
        console.print(plain_text(f"skipped {row.location}: {row.reason}"))
    if len(data.skipped_rows) > MAX_SKIPPED_ROWS:
        console.print(plain_text(f"skipped {len(data.skipped_rows) - MAX_SKIPPED_ROWS:,} more rows"))


def _count_tasks(parts: Mapping[str, Sequence[RoutingExample]]) -> dict[str, dict[str, int]]:
    counts = {split: Counter(example.task for example in part) for split, part in parts.items()}
    # The largest task first; of equal ones the first read.
    totals = sum(counts.values(), Counter[str]())
    return {task: {split: counts[split][task] for split in parts} for task, _ in totals.most_common()}


def _summarise(
    pool: Sequence[Candidate], scores: Floats, is_best: Bools, costs: Floats | None
) -> tuple[CandidateSummary, ...]:
    # A tie has several best candidates, none of them alone.
    is_only_best = is_best & (is_best.sum(axis=1, keepdims=True) == 1)
    mean_costs = [None] * len(pool) if costs is None else costs.mean(axis=0).tolist()
    means = (scores.mean(axis=0), mean_costs, is_best.mean(axis=0), is_only_best.mean(axis=0))
    return tuple(
        CandidateSummary(
            candidate=candidate,
            mean_score=float(score),
            mean_cost=cost,
            best_share=float(best),
            only_best_share=float(only_best),
        )
        for candidate, score, cost, best, only_best in zip(pool, *means, strict=True)
    )


def _references(splits: RoutingSplits, single: str) -> Mapping[str, Reference]:
    test, names = splits.test, splits.candidate_names
    if not test:
        return {}
    scores = matrix([example.scores for example in test], names)
    costs = known_matrix([example.costs for example in test], names)
    expected = known_matrix([example.expected_scores for example in test], names)
    tasks, means = [example.task for example in test], train_means(splits.train, splits.pool)
    # Without a router there is no cost to mix candidates for.
    choices = reference_choices(scores, costs, expected, names.index(single), tasks, names, means, mean_cost=None)
    return evaluate_references(choices, scores, costs)


def _task_table(data: DataDescription) -> Table:
    table = _table("Queries", "Task", *(split.capitalize() for split in data.num_queries))
    # All queries first, set apart from the tasks they consist of.
    table.add_row("all", *(f"{num:,}" for num in data.num_queries.values()), style="bold", end_section=True)
    tasks = list(data.tasks.items())
    for task, counts in tasks[:MAX_TASKS]:
        table.add_row(plain_text(task), *(f"{num:,}" for num in counts.values()))
    if left_out := tasks[MAX_TASKS:]:
        num_queries = sum(sum(counts.values()) for _, counts in left_out)
        table.caption = f"{count(len(left_out), 'more task', 'more tasks')}, {count(num_queries, 'query', 'queries')}"
    return table


def _candidate_table(data: DataDescription) -> Table:
    prices = "USD per 1M\ntokens in/out"
    table = _table("Candidates", "Name", prices, "USD per\n1,000", "Mean\nscore", "Best or\ntied", "Alone\nbest")
    for one in data.candidates:
        table.add_row(
            # Best single is bold.
            plain_text(one.candidate.name, style="bold" if one.candidate.name == data.best_single else ""),
            f"{_price(one.candidate.input_price)}/{_price(one.candidate.output_price)}",
            format_estimate(one.mean_cost, COST),
            format_estimate(one.mean_score, SCORE),
            format_estimate(one.best_share, PERCENT),
            format_estimate(one.only_best_share, PERCENT),
        )
    return table


def _reference_table(data: DataDescription) -> Table:
    title = f"References on {count(data.num_queries['test'], 'test query', 'test queries')}"
    table = _table(title, "Who chooses", "Mean score", "Routing\naccuracy", "USD per\n1,000")
    for name, reference in data.references.items():
        table.add_row(
            two_lines(REFERENCE_NAMES[name], explain_reference(name, data.best_single)),
            format_two_lines(reference.mean_score, SCORE),
            format_two_lines(reference.routing_accuracy, PERCENT),
            format_estimate(value_of(reference.mean_cost), COST),
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
        "Queries with equal scores": f"{data.undecided_share:.1%}",
        "Queries no LLM answers": f"{data.unsolved_share:.1%}",
        "Queries read": f"{audit.num_read:,}, of them {audit.num_distinct:,} distinct",
        "Duplicates left out": duplicates,
        "Source's test queries in its train": "no splits in the source"
        if source_leaks is None
        else f"{source_leaks:,}",
        "Near duplicates in test": _near_duplicates(audit.test, audit.near_duplicate_threshold),
        "Near duplicates in validation": _near_duplicates(audit.validation, audit.near_duplicate_threshold),
        "Rows skipped": f"{len(data.skipped_rows):,}",
    }
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _near_duplicates(found: NearDuplicates, threshold: float) -> str:
    return f"{found.num_found:,} of {found.num_checked:,} (Jaccard >= {threshold:g} with train)"


def _near_duplicate(pair: NearDuplicate) -> Text:
    heading = f"{pair.split} {pair.query_id} and train {pair.train_query_id}: similarity {pair.similarity:.3f}"
    return plain_text(heading) + plain_text(f"\n  {pair.query}\n  {pair.train_query}", "dim")


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.caption_justify = "left"
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def _price(price: float | None) -> str:
    return "?" if price is None else f"{price:g}"
