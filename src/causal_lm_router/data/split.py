"""From a source's data to train, validation and test: deduplicated, stratified by task, audited, repeatable.

The queries of a task are sorted by a hash of (split seed, query), and the place in this order sets the split. So
queries that are added to a source move few of the others.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from causal_lm_router.config import DataConfig, Split
from causal_lm_router.data.leakage import DuplicateCounts, LeakageAudit, find_near_duplicates
from causal_lm_router.data.sources.rows import hash_query
from causal_lm_router.routing import Candidate, RoutingData, RoutingExample, SkippedRow


@dataclass(frozen=True, slots=True)
class RoutingSplits:
    """Disjoint, deduplicated lists of examples in the source's order, with the pool, the audit and what was noticed.

    A split whose share is 0 is empty; every other one has at least one query.
    """

    train: list[RoutingExample]
    validation: list[RoutingExample]
    test: list[RoutingExample]
    pool: tuple[Candidate, ...]
    audit: LeakageAudit
    skipped_rows: tuple[SkippedRow, ...] = ()
    warnings: tuple[str, ...] = ()
    """What the source noticed."""

    @property
    def candidate_names(self) -> list[str]:
        """Candidate names in pool order, the order of every example's scores."""
        return [candidate.name for candidate in self.pool]


def split_examples(data: RoutingData, config: DataConfig) -> RoutingSplits:
    """Return the splits of `data` and their leakage audit.

    Every task is split by `validation_fraction` and `test_fraction` (largest remainder); tasks too small to give each
    split a query are split together. `test_fold` takes another part of the same order as test, disjoint from those of
    the other folds. Under `use_source_split` test is the source's own, and so is validation; where the
    source has none it is cut from train. Of a query in several splits the one in test stays, then that in validation.
    Queries of one family or group stay in one split. Under `test_tasks` test is all queries of these tasks. Queries of
    a family that groups or tasks cut in two are left out of train, and out of validation where test has the family.
    Queries of `skip_tasks` are in none.
    `max_train_queries` keeps the tasks' shares, and a larger number keeps all queries that a smaller one keeps.

    Raises:
        ValueError: a split that should hold queries is empty, the source assigns no splits under `use_source_split`, or
            `test_tasks` or `skip_tasks` has a task that no query has.
    """
    examples = data.examples
    if config.use_source_split:
        _check_source_splits(examples)
        # Deduplication keeps the first, so of a query in both splits the test row stays: published results are on test.
        order = [Split.test, Split.validation, Split.train]
        examples = sorted(examples, key=lambda example: order.index(Split(example.source_split or Split.train)))
    kept, duplicates = deduplicate(examples)
    kept, _ = _take_tasks(kept, config.skip_tasks, "data.skip_tasks")
    if config.use_source_split:
        train, validation, test = (
            [example for example in kept if example.source_split == split]
            for split in (Split.train, Split.validation, Split.test)
        )
        if not any(example.source_split == Split.validation for example in examples):
            train, validation, _ = _assign(train, config.validation_fraction, 0.0, config.split_seed)
    elif config.test_tasks:
        rest, test = _take_tasks(kept, config.test_tasks, "data.test_tasks")
        train, validation, _ = _assign(rest, config.validation_fraction, 0.0, config.split_seed)
    else:
        fractions = (config.validation_fraction, config.test_fraction)
        train, validation, test = _assign(kept, *fractions, config.split_seed, config.test_fold)
    # Groups and tasks may cut a family in two: then its queries count where they tell most, in test or validation.
    validation = _leave_out_families(validation, test)
    train = _leave_out_families(train, [*validation, *test])
    if config.max_train_queries is not None:
        train = _thin_out(train, config.max_train_queries, config.split_seed)
    _check_sizes((train, validation, test), config)
    audit = _audit(data.examples, duplicates, (train, validation, test), config.near_duplicate_threshold)
    return RoutingSplits(train, validation, test, data.pool, audit, data.skipped_rows, data.warnings)


def deduplicate(examples: Iterable[RoutingExample]) -> tuple[list[RoutingExample], DuplicateCounts]:
    """Return the first example of every query, equal up to case and white space, and the counts of those left out."""
    kept: dict[str, RoutingExample] = {}
    texts: set[str] = set()
    num_exact = num_normalised = num_conflicting = 0
    # `texts` holds every text read so far, the left-out ones too: a copy of a left-out text is an exact duplicate.
    for example in examples:
        first = kept.setdefault(hash_query(example.query), example)
        if first is not example:
            is_exact = example.query in texts
            num_exact += is_exact
            num_normalised += not is_exact
            num_conflicting += example.scores != first.scores
        texts.add(example.query)
    return list(kept.values()), DuplicateCounts(num_exact, num_normalised, num_conflicting)


def _check_source_splits(examples: Iterable[RoutingExample]) -> None:
    for example in examples:
        if example.source_split is None:
            raise ValueError(
                "data.use_source_split must be false unless the source assigns train, validation or test to every "
                f"query, got true: query {example.query_id!r} has none"
            )


def _assign(
    examples: Sequence[RoutingExample], validation_fraction: float, test_fraction: float, seed: int, test_fold: int = 0
) -> tuple[list[RoutingExample], list[RoutingExample], list[RoutingExample]]:
    """Cut every stratum, ordered by hash, into test, validation and train; return train, validation and test."""
    # Test comes first in the order, so that validation_fraction hardly changes it, and first among equal remainders.
    fractions = (test_fraction, validation_fraction, 1 - validation_fraction - test_fraction)
    assigned: dict[str, Split] = {}
    for stratum in _group_strata(examples, min_share=min((f for f in fractions[:2] if f > 0), default=1.0)):
        num_test, num_validation, _ = _apportion(sum(map(len, stratum)), fractions)
        ordered = sorted(stratum, key=lambda family: min(_rank_key(example, seed) for example in family), reverse=True)
        earlier = [family for _ in range(test_fold) for family in _take_families(ordered, num_test)]
        test_families = _take_families(ordered, num_test)
        # What is left after test and validation is train.
        for split, families in (
            (Split.test, test_families),
            (Split.validation, _take_families([*earlier, *ordered], num_validation)),
        ):
            assigned.update((example.query_id, split) for family in families for example in family)
    # Back to the source's order.
    train, validation, test = (
        [example for example in examples if assigned.get(example.query_id, Split.train) is split]
        for split in (Split.train, Split.validation, Split.test)
    )
    return train, validation, test


def _take_families(families: list[list[RoutingExample]], num: int) -> list[list[RoutingExample]]:
    """Take families of about `num` queries from the end of the list: at least one where `num` is above 0."""
    taken: list[list[RoutingExample]] = []
    num_taken = 0
    while families and num > 0 and (not taken or num_taken + len(families[-1]) / 2 <= num):
        taken.append(families.pop())
        num_taken += len(taken[-1])
    return taken


def _group_strata(examples: Iterable[RoutingExample], min_share: float) -> list[list[list[RoutingExample]]]:
    """Return a list of families per task, and one for all tasks with so few that `min_share` of them is below 1."""
    tasks: dict[str, list[list[RoutingExample]]] = defaultdict(list)
    for family in _group_families(examples):
        tasks[family[0].task].append(family)
    # The small tasks together are large enough to be cut; alone each would fall whole into one split.
    large = [stratum for stratum in tasks.values() if len(stratum) * min_share >= 1]
    small = [family for stratum in tasks.values() if len(stratum) * min_share < 1 for family in stratum]
    return [*large, small]


def _group_families(examples: Iterable[RoutingExample]) -> list[list[RoutingExample]]:
    """Return lists of queries: those of one group (or of one family, where they have no group) are in one list."""
    together: dict[tuple[str, str], list[RoutingExample]] = defaultdict(list)
    for example in examples:
        key = ("group", example.group) if example.group else ("family", example.family or "")
        together[key if key[1] else ("query", example.query_id)].append(example)
    return list(together.values())


def _take_tasks(
    examples: Sequence[RoutingExample], tasks: Sequence[str], key: str
) -> tuple[list[RoutingExample], list[RoutingExample]]:
    """Return the queries of other tasks, and those of `tasks`, the value of the setting `key`."""
    known = {example.task for example in examples}
    unknown = [task for task in tasks if task not in known]
    if unknown:
        raise ValueError(f"{key} must be tasks of the data ({', '.join(sorted(known))}), got {unknown}")
    rest, taken = (
        [example for example in examples if (example.task in tasks) is of_tasks] for of_tasks in (False, True)
    )
    return rest, taken


def _leave_out_families(examples: Iterable[RoutingExample], held_out: Iterable[RoutingExample]) -> list[RoutingExample]:
    """Return the examples without those that are of a family of a held-out query."""
    families = {example.family for example in held_out if example.family is not None}
    return [example for example in examples if example.family not in families]


def _apportion(num: int, fractions: Sequence[float]) -> list[int]:
    """Return whole numbers that sum to `num`, close to `num * fractions`: largest remainder, ties to the earlier."""
    shares = [num * fraction for fraction in fractions]
    # Round down first; what is left over goes to the largest remainders.
    counts = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda index: counts[index] - shares[index])
    for index in by_remainder[: num - sum(counts)]:
        counts[index] += 1
    return counts


def _rank_key(example: RoutingExample, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {hash_query(example.query)}".encode(), digest_size=16).digest()


def _thin_out(train: list[RoutingExample], max_queries: int, seed: int) -> list[RoutingExample]:
    """Return the first `max_queries` of an order whose every prefix holds the tasks in proportion."""
    tasks: dict[str, list[RoutingExample]] = defaultdict(list)
    for example in sorted(train, key=lambda example: _rank_key(example, seed)):
        tasks[example.task].append(example)
    # The queries of each task get evenly spread places in 0..1; merged by place, every prefix has the tasks' shares.
    spread = [
        ((place + 0.5) / len(stratum), example.query_id)
        for stratum in tasks.values()
        for place, example in enumerate(stratum)
    ]
    chosen = {query_id for _, query_id in sorted(spread)[:max_queries]}
    return [example for example in train if example.query_id in chosen]


def _check_sizes(splits: Sequence[Sequence[RoutingExample]], config: DataConfig) -> None:
    num_train, num_validation, num_test = (len(split) for split in splits)
    found = f"{num_train} train, {num_validation} validation and {num_test} test queries"
    if config.use_source_split and not num_test:
        raise ValueError(
            f"data.use_source_split must be false where the source's test split is empty, got true: {found}"
        )
    for key, num in (("validation_fraction", num_validation), ("test_fraction", num_test)):
        fraction = getattr(config, key)
        if fraction > 0 and num == 0 and not (config.use_source_split and key == "test_fraction"):
            raise ValueError(f"data.{key} must be 0 or a share of at least one query, got {fraction}: {found}")
    if not num_train:
        raise ValueError(f"data must leave at least 1 training query, got {found}: read more data or hold out less")


def _audit(
    examples: Sequence[RoutingExample],
    duplicates: DuplicateCounts,
    splits: Sequence[Sequence[RoutingExample]],
    threshold: float,
) -> LeakageAudit:
    train, validation, test = splits
    num_left_out = duplicates.exact + duplicates.normalised
    near_duplicates = find_near_duplicates({"validation": validation, "test": test}, train, threshold)
    return LeakageAudit(
        num_read=len(examples),
        num_distinct=len(examples) - num_left_out,
        exact_duplicates=duplicates.exact,
        normalised_duplicates=duplicates.normalised,
        conflicting_duplicates=duplicates.conflicting,
        source_test_in_train=_count_source_leaks(examples),
        near_duplicate_threshold=threshold,
        **near_duplicates,
    )


def _count_source_leaks(examples: Iterable[RoutingExample]) -> int | None:
    """Return the number of distinct queries in both splits of the source; None if it does not have both."""
    by_split: dict[str | None, set[str]] = defaultdict(set)
    for example in examples:
        by_split[example.source_split].add(hash_query(example.query))
    if not {Split.train, Split.test} <= by_split.keys():
        return None
    return len(by_split[Split.train] & by_split[Split.test])
