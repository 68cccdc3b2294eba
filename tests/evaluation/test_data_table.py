"""The description of a data set and its print: every number by hand, at 80 columns."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from causal_lm_router.data.leakage import LeakageAudit, NearDuplicate, NearDuplicates
from causal_lm_router.data.split import RoutingSplits
from causal_lm_router.evaluation.data_table import describe_data, print_data
from causal_lm_router.routing import Candidate, RoutingExample, SkippedRow

NAMES = ("cheap", "strong")
PAIR = NearDuplicate("test", "id-7", "id-3", 0.875, "What is 2 + 2?", "What is 2 + 3?")
AUDIT = LeakageAudit(
    num_read=1234,
    num_distinct=1200,
    exact_duplicates=30,
    normalised_duplicates=4,
    conflicting_duplicates=5,
    source_test_in_train=119,
    near_duplicate_threshold=0.8,
    validation=NearDuplicates(1, 0, ()),
    test=NearDuplicates(4, 1, (PAIR,)),
)


def example(number: int, task: str, cheap: float, strong: float) -> RoutingExample:
    costs = {"cheap": 0.001, "strong": 0.02}
    expected = {"cheap": 0.25, "strong": 0.75}
    return RoutingExample(str(number), f"query {number}", task, {"cheap": cheap, "strong": strong}, costs, expected)


@pytest.fixture
def splits() -> RoutingSplits:
    """Eight queries: strong is best alone on four, cheap on one; on two both score 0 and on one both score 1."""
    train = [example(0, "maths", 0, 1), example(1, "maths", 0, 0), example(2, "law", 1, 1)]
    validation = [example(3, "law", 0, 1)]
    test = [example(4, "law", 0, 1), example(5, "maths", 1, 0), example(6, "law", 0.5, 1), example(7, "law", 0, 0)]
    pool = (Candidate("cheap", 0.1, 0.4), Candidate("strong"))
    return RoutingSplits(train, validation, test, pool, AUDIT)


def test_sizes_and_tasks(splits: RoutingSplits) -> None:
    data = describe_data(splits)
    assert data.num_queries == {"train": 3, "validation": 1, "test": 4}
    assert list(data.tasks.items()) == [
        ("law", {"train": 1, "validation": 1, "test": 3}),
        ("maths", {"train": 2, "validation": 0, "test": 1}),
    ]


def test_candidates_and_shares(splits: RoutingSplits) -> None:
    data = describe_data(splits)
    cheap, strong = data.candidates
    # Scores of cheap: 0, 0, 1, 0, 0, 1, 0.5, 0; of strong: 1, 0, 1, 1, 1, 0, 1, 0.
    assert (cheap.mean_score, strong.mean_score) == (0.3125, 0.625)
    assert (cheap.mean_cost, strong.mean_cost) == pytest.approx((0.001, 0.02))
    assert (cheap.best_share, strong.best_share) == (0.5, 0.875)
    assert (cheap.only_best_share, strong.only_best_share) == (0.125, 0.5)
    assert data.single_best_share == 0.625
    assert data.undecided_share == 0.375
    assert data.unsolved_share == 0.25


def test_references_are_those_of_the_test_split(splits: RoutingSplits) -> None:
    data = describe_data(splits)
    assert data.best_single == "strong"
    scores = {name: reference.mean_score.value for name, reference in data.references.items()}
    # On the four test queries: cheap 0, 1, 0.5, 0; strong 1, 0, 1, 0.
    assert scores == {"random": 0.4375, "best_single": 0.5, "per_task_best": 0.5, "oracle": 0.75, "bayes": 0.5}


def test_unknown_costs_stay_unknown(splits: RoutingSplits) -> None:
    without = replace(splits, validation=[replace(splits.validation[0], costs=None)])
    assert [one.mean_cost for one in describe_data(without).candidates] == [None, None]


def test_no_test_split_has_no_references(splits: RoutingSplits) -> None:
    assert describe_data(replace(splits, test=[])).references == {}


def printed(splits: RoutingSplits) -> str:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    print_data(splits, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


def test_print_holds_every_part(splits: RoutingSplits) -> None:
    lines = printed(splits).splitlines()
    for line in (
        "all 3 1 4",
        "law 1 1 3",
        "maths 2 0 1",
        "cheap 0.1/0.4 1.000 0.312 50.0% 12.5%",
        "strong ?/? 20.000 0.625 87.5% 50.0%",
        "References on 4 test queries",
        "best single 0.500 75.0% 20.000",
        "Queries with one best candidate 62.5%",
        "Queries with equal scores 37.5%",
        "Queries no LLM answers 25.0%",
        "Queries read 1,234, of them 1,200 distinct",
        "Duplicates left out 30 exact, 4 up to case and white space; 5",
        "Source's test queries in its train 119",
        "Near duplicates in test 1 of 4 (Jaccard >= 0.8 with train)",
        "Near duplicates in validation 0 of 1 (Jaccard >= 0.8 with train)",
        "Rows skipped 0",
        "test id-7 and train id-3: similarity 0.875",
        "What is 2 + 3?",
    ):
        assert line in lines


def test_escape_sequences_are_shown_not_obeyed(splits: RoutingSplits) -> None:
    bad = "\x1b[2J\u202e"
    hostile = NearDuplicate("test", bad, bad, 1.0, bad, bad)
    audit = replace(AUDIT, test=replace(AUDIT.test, examples=(hostile,)))
    train = [replace(one, task=bad) for one in splits.train]
    skipped = (SkippedRow(bad, bad),)
    text = printed(
        replace(splits, train=train, pool=(Candidate("cheap"), Candidate("strong")), audit=audit, skipped_rows=skipped)
    )
    assert text.count("\\x1b[2J\\u202e") == 7
    assert text.replace("\n", "").isprintable()


def test_print_shows_the_first_skipped_rows(splits: RoutingSplits) -> None:
    skipped = tuple(SkippedRow(f"file[{number}]", "query is empty") for number in range(7))
    lines = printed(replace(splits, skipped_rows=skipped)).splitlines()
    # Square brackets are text, not markup.
    assert "skipped file[0]: query is empty" in lines
    assert "skipped 2 more rows" in lines
    assert "Rows skipped 7" in lines


def test_print_folds_many_tasks(splits: RoutingSplits) -> None:
    train = [example(number, f"[b]task {number:02}", 0, 1) for number in range(40)]
    lines = printed(replace(splits, train=train)).splitlines()
    # Shown are law, with four queries, and 29 of the 40 new tasks; hidden the other 11 and maths.
    assert "12 more tasks, 12 queries" in lines
    assert any(line.startswith("[b]task 0") for line in lines)
