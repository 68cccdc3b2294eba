"""Deduplication, the split by task, and the leakage audit."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from causal_lm_router.config import DataConfig
from causal_lm_router.data import leakage
from causal_lm_router.data.leakage import DuplicateCounts, find_near_duplicates
from causal_lm_router.data.sources import load_source
from causal_lm_router.data.split import RoutingSplits, deduplicate, split_examples
from causal_lm_router.routing import Candidate, RoutingData, RoutingExample, SkippedRow

POOL = (Candidate("a"), Candidate("b"))
MakeConfig = Callable[..., DataConfig]


@pytest.fixture
def make_config(make_data_config: MakeConfig) -> MakeConfig:
    """`make_data_config` with a source, which is not read."""
    return partial(make_data_config, source="jsonl")


def example(query: str, task: str = "t", score: float = 1.0, source_split: str | None = None) -> RoutingExample:
    return RoutingExample(f"id of {query}", query, task, {"a": score, "b": 0.0}, source_split=source_split)


def examples(**tasks: int) -> list[RoutingExample]:
    """So many queries of every task; no two share a 5-gram but those of their task's name."""
    stream = random.Random(3)
    return [example(f"{task} {stream.getrandbits(128):x}", task) for task, num in tasks.items() for _ in range(num)]


def split(rows: Iterable[RoutingExample], config: DataConfig) -> RoutingSplits:
    return split_examples(RoutingData(list(rows), POOL), config)


def sizes(splits: RoutingSplits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.validation), len(splits.test)


def queries(rows: Iterable[RoutingExample]) -> set[str]:
    return {row.query for row in rows}


def test_duplicates_are_counted_by_kind() -> None:
    rows = [
        example("What is 2 + 2?"),
        example("what  is\n2 + 2?"),  # case and white space
        example("What is 2 + 2?", score=0.5),  # exact, with another score
        example("what  is\n2 + 2?"),  # exact: the text was read before
        example("What is 2 + 3?"),
    ]
    rows = [replace(row, query_id=str(number)) for number, row in enumerate(rows)]
    kept, counts = deduplicate(rows)
    assert [row.query_id for row in kept] == ["0", "4"]
    assert counts == DuplicateCounts(exact=2, normalised=1, conflicting=1)


@pytest.mark.parametrize(
    ("num", "expected"),
    [
        (10, (8, 1, 1)),
        (100, (80, 10, 10)),
        # 11.2, 1.4 and 1.4: the one left over goes to test
        (14, (11, 1, 2)),
        # 15.2, 1.9 and 1.9
        (19, (15, 2, 2)),
    ],
)
def test_fractions_are_honoured(num: int, expected: tuple[int, int, int], make_config: MakeConfig) -> None:
    config = make_config(validation_fraction=0.1, test_fraction=0.1)
    assert sizes(split(examples(one=num), config)) == expected


def test_every_task_is_split_by_itself(make_config: MakeConfig) -> None:
    config = make_config(validation_fraction=0.1, test_fraction=0.2)
    splits = split(examples(small=10, large=200), config)
    counts = [Counter(row.task for row in part) for part in (splits.train, splits.validation, splits.test)]
    assert counts == [{"small": 7, "large": 140}, {"small": 1, "large": 20}, {"small": 2, "large": 40}]


def test_splits_are_disjoint_complete_and_in_order(make_config: MakeConfig) -> None:
    rows = examples(one=57, two=31)
    splits = split(rows, make_config())
    parts = [splits.train, splits.validation, splits.test]
    assert sorted(row.query_id for part in parts for row in part) == sorted(row.query_id for row in rows)
    for part in parts:
        assert part == [row for row in rows if row in part]


def test_split_depends_on_the_seed_alone(make_config: MakeConfig) -> None:
    rows = examples(one=200)
    first, other = (split(rows, make_config(split_seed=seed)) for seed in (0, 1))
    shuffled = split(random.Random(0).sample(rows, len(rows)), make_config(split_seed=0))
    assert queries(shuffled.test) == queries(first.test)
    assert queries(shuffled.train) == queries(first.train)
    # 20 of 200 queries chosen twice share 2 on average.
    assert len(queries(first.test) & queries(other.test)) < 10


def test_folds_are_disjoint_and_cover_the_data(make_config: MakeConfig) -> None:
    rows = examples(x=52, y=33)
    folds = [split(rows, make_config(validation_fraction=0.1, test_fraction=0.2, test_fold=fold)) for fold in range(5)]
    assert folds[0] == split(rows, make_config(validation_fraction=0.1, test_fraction=0.2))
    tested = [row.query for fold in folds for row in fold.test]
    assert len(tested) == len(set(tested)) >= 85 - 4
    for fold in folds:
        assert {row.task for row in fold.test} == {"x", "y"}
        assert sum(sizes(fold)) == len(queries([*fold.train, *fold.validation, *fold.test])) == 85


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_fold": 5, "test_fraction": 0.2}, r"in 0\.\.4 under data\.test_fraction=0\.2, got 5"),
        ({"test_fold": -1}, r"in 0\.\.9 .*got -1"),
        ({"test_fold": 1, "test_fraction": 0.0}, r"in 0\.\.0 .*got 1"),
        ({"test_fold": 1, "test_tasks": ["x"]}, "0 where test is given by"),
        ({"test_fold": 1, "use_source_split": True}, "0 where test is given by"),
    ],
)
def test_a_fold_must_be_one_of_the_test_fraction(
    settings: dict[str, object], message: str, make_config: MakeConfig
) -> None:
    with pytest.raises(ValueError, match=rf"data\.test_fold must be {message}"):
        make_config(**settings)


def test_added_rows_move_few_queries(make_config: MakeConfig) -> None:
    rows = examples(one=1000)
    before = split(rows, make_config())
    after = split([*rows, *examples(two=50), *(example(f"one {number}", "one") for number in range(50))], make_config())
    moved = len(queries(before.test) - queries(after.test))
    assert moved <= 10


def test_tasks_too_small_for_a_split_are_split_together(make_config: MakeConfig) -> None:
    rows = examples(**{f"task{number}": 1 for number in range(40)})
    assert sizes(split(rows, make_config(validation_fraction=0.1, test_fraction=0.2))) == (28, 4, 8)


def test_max_train_queries_keeps_the_shares_of_tasks(make_config: MakeConfig) -> None:
    rows = examples(small=100, large=300)
    whole, half, few = (split(rows, make_config(max_train_queries=num)) for num in (None, 160, 40))
    assert Counter(row.task for row in half.train) == {"small": 40, "large": 120}
    assert Counter(row.task for row in few.train) == {"small": 10, "large": 30}
    assert queries(few.train) < queries(half.train) < queries(whole.train)
    assert few.test == whole.test


def test_max_train_queries_above_the_number_of_queries(make_config: MakeConfig) -> None:
    assert sizes(split(examples(one=10), make_config(max_train_queries=1000))) == (8, 1, 1)


def test_source_split_keeps_its_test_whole_and_out_of_train(make_config: MakeConfig) -> None:
    train = [replace(row, source_split="train") for row in examples(one=40)]
    test = [replace(row, query_id=f"test {row.query_id}", source_split="test") for row in train[:3]]
    rows = [*train, *test, example("only in test", source_split="test")]
    splits = split(rows, make_config(use_source_split=True, validation_fraction=0.1))
    assert [row.query for row in splits.test] == [*(row.query for row in test), "only in test"]
    assert {row.source_split for row in splits.test} == {"test"}
    assert not queries(splits.test) & queries([*splits.train, *splits.validation])
    # 37 train queries are left: 33.3 and 3.7
    assert sizes(splits) == (33, 4, 4)
    assert splits.audit.source_test_in_train == 3


def test_the_sources_own_validation_split_is_taken(make_config: MakeConfig) -> None:
    train = [replace(row, source_split="train") for row in examples(one=40)]
    # The same text under other ids, in each of the three splits: the test row stays, then that of validation.
    validation = [replace(row, query_id=f"validation {row.query_id}", source_split="validation") for row in train[:6]]
    test = [replace(row, query_id=f"test {row.query_id}", source_split="test") for row in train[:3]]
    splits = split([*train, *validation, *test], make_config(use_source_split=True, validation_fraction=0.1))
    assert sizes(splits) == (34, 3, 3)
    assert splits.validation == validation[3:] and splits.test == test
    # Without the setting the source's splits count for nothing.
    assert sizes(split(train + validation[:0], make_config())) == (32, 4, 4)


def test_one_text_under_two_ids_stays_on_one_side(make_config: MakeConfig) -> None:
    rows = examples(one=200)
    twice = [*rows, *(replace(row, query_id=f"{row.query_id} again", query=row.query.upper() + " ") for row in rows)]
    splits = split(twice, make_config())
    sides = [{row.query.lower() for row in part} for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 200


def test_a_group_stays_in_one_split(make_config: MakeConfig) -> None:
    rows = [replace(row, group=f"g{number % 20}") for number, row in enumerate(examples(x=100, y=100))]
    splits = split(rows, make_config())
    groups = [{row.group for row in part} for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 20
    assert sizes(splits) == (160, 20, 20)


def test_tasks_are_the_groups(make_config: MakeConfig, tmp_path: Path) -> None:
    lines = [{"query": row.query, "task": row.task, "scores": row.scores} for row in examples(a=9, b=9, c=9, d=9)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = make_config(path=str(path), group_by="task")
    splits = split_examples(load_source(config), config)
    tasks = [{row.task for row in part} for part in (splits.train, splits.validation, splits.test)]
    assert list(map(len, tasks)) == [2, 1, 1]
    assert len(set.union(*tasks)) == 4


def test_a_family_stays_in_one_split_without_a_group(make_config: MakeConfig) -> None:
    rows = [replace(row, family=f"f{number // 3}") for number, row in enumerate(examples(x=300))]
    splits = split(rows, make_config())
    families = [{row.family for row in part} for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, families)) == 100
    assert sizes(splits) == (240, 30, 30)


def test_held_out_tasks_are_the_test_split(make_config: MakeConfig) -> None:
    rows = examples(x=50, y=50, z=10)
    # A variant of a test question in another task would leak it.
    rows[0] = replace(rows[0], family="same")
    rows[-1] = replace(rows[-1], family="same")
    splits = split(rows, make_config(test_tasks=["z"], validation_fraction=0.2))
    assert {row.task for row in splits.test} == {"z"}
    assert len(splits.test) == 10
    assert rows[0].query not in queries([*splits.train, *splits.validation])
    assert len(splits.train) + len(splits.validation) == 99
    assert len(splits.validation) in (19, 20)


def test_skipped_tasks_are_in_no_split(make_config: MakeConfig) -> None:
    splits = split(examples(x=50, y=50, z=10), make_config(skip_tasks=["z"]))
    assert {row.task for part in (splits.train, splits.validation, splits.test) for row in part} == {"x", "y"}
    assert sum(sizes(splits)) == 100
    with pytest.raises(ValueError, match=r"data\.skip_tasks must be tasks of the data \(x\), got \['q'\]"):
        split(examples(x=50), make_config(skip_tasks=["q"]))


def test_held_out_tasks_must_be_tasks(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match=r"data\.test_tasks must be tasks of the data \(x\), got \['q'\]"):
        split(examples(x=50), make_config(test_tasks=["q"]))
    with pytest.raises(ValueError, match=r"data\.test_tasks must be \[\] under data\.use_source_split=true"):
        make_config(test_tasks=["x"], use_source_split=True)


def test_a_source_without_columns_groups_by_task_alone(make_data_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match=r"data\.group_by must be task or null under data=routerdc, got 'src'"):
        make_data_config(source="routerdc", group_by="src")


def test_source_split_needs_a_split_of_every_query(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match=r"data\.use_source_split .*got true: query 'id of one .*has none"):
        split(examples(one=40), make_config(use_source_split=True))


def test_source_split_without_test_queries(make_config: MakeConfig) -> None:
    rows = [replace(row, source_split="train") for row in examples(one=40)]
    with pytest.raises(ValueError, match=r"data\.use_source_split .*test split is empty"):
        split(rows, make_config(use_source_split=True))


@pytest.mark.parametrize(
    ("num", "validation", "test", "message"),
    [
        (4, 0.05, 0.25, r"data\.validation_fraction .*got 0\.05: 3 train, 0 validation and 1 test queries"),
        (5, 0.0, 0.05, r"data\.test_fraction .*got 0\.05: 5 train, 0 validation and 0 test queries"),
        (2, 0.49, 0.5, r"data .*got 0 train, 1 validation and 1 test queries"),
    ],
    ids=["validation", "test", "train"],
)
def test_an_empty_split_is_an_error(
    num: int, validation: float, test: float, message: str, make_config: MakeConfig
) -> None:
    config = make_config(validation_fraction=validation, test_fraction=test)
    with pytest.raises(ValueError, match=message):
        split(examples(one=num), config)


def test_a_split_of_share_0_is_empty(make_config: MakeConfig) -> None:
    splits = split(examples(one=10), make_config(validation_fraction=0.0, test_fraction=0.2))
    assert sizes(splits) == (8, 0, 2)
    assert splits.audit.validation.num_checked == 0


def test_pool_and_skipped_rows_pass_through(make_config: MakeConfig) -> None:
    skipped = (SkippedRow("file:3", "no query"),)
    splits = split_examples(RoutingData(examples(one=20), POOL, skipped), make_config())
    assert splits.pool == POOL
    assert splits.skipped_rows == skipped


# abcdefghij and abcdefghik have six 5-grams each and share five: 5 / 7.
@pytest.mark.parametrize(("threshold", "num_found"), [(0.71, 1), (0.72, 0)])
def test_near_duplicates_are_those_above_the_threshold(threshold: float, num_found: int) -> None:
    found = find_near_duplicates({"test": [example("abcdefghij")]}, [example("abcdefghik")], threshold)["test"]
    assert (found.num_checked, found.num_found) == (1, num_found)


def test_near_duplicate_is_described() -> None:
    held_out = {"validation": [example("quite another text")], "test": [example("ABC  defghij" + "x" * 100)]}
    found = find_near_duplicates(held_out, [example("abc defghij"), example("abc defghij" + "x" * 99)], 0.8)
    assert found["validation"].examples == ()
    (pair,) = found["test"].examples
    assert pair.split == "test"
    assert pair.query_id == "id of ABC  defghij" + "x" * 100
    assert pair.train_query_id == "id of abc defghij" + "x" * 99
    assert pair.similarity == 1.0
    assert pair.query == "ABC defghij" + "x" * 69
    assert pair.train_query == "abc defghij" + "x" * 69


def test_the_most_similar_examples_come_first() -> None:
    base = "the quick brown fox jumps over the lazy dog and runs away"
    train = [example(base)]
    held_out = [example(base + "!" * num) for num in (4, 1, 3, 2)] + [example(base[:-num]) for num in (3, 1, 2)]
    found = find_near_duplicates({"test": held_out}, train, 0.8)["test"]
    assert found.num_found == 7
    similarities = [pair.similarity for pair in found.examples]
    assert len(similarities) == 5
    assert similarities == sorted(similarities, reverse=True)


def test_near_duplicates_match_a_search_of_all_pairs() -> None:
    stream = random.Random(7)
    words = ["river", "stone", "count", "angle", "seven", "prime", "letter", "graph", "maze", "clock"]
    train = [example(" ".join(stream.choices(words, k=12))) for _ in range(200)]
    held_out = []
    for row in train[:100]:
        changed = row.query.split()
        changed[stream.randrange(12)] = stream.choice(words)
        held_out.append(example(" ".join(changed)))

    def grams(row: RoutingExample) -> set[str]:
        return {row.query[start : start + 5] for start in range(len(row.query) - 4)}

    def has_pair(row: RoutingExample) -> bool:
        pairs = ((grams(row), grams(other)) for other in train)
        return any(len(one & other) / len(one | other) >= 0.8 for one, other in pairs)

    expected = sum(has_pair(row) for row in held_out)
    found = find_near_duplicates({"test": held_out}, train, 0.8)["test"]
    assert 20 < expected < 100
    assert found.num_found == expected


@pytest.mark.parametrize(("threshold", "num_found"), [(0.0, 2), (1.0, 1)])
def test_extreme_thresholds(threshold: float, num_found: int) -> None:
    held_out = {"test": [example("same text here"), example("same text there")]}
    assert find_near_duplicates(held_out, [example("SAME text here")], threshold)["test"].num_found == num_found


def test_short_queries_are_compared_whole() -> None:
    held_out = {"test": [example("Hi"), example("Yo")]}
    assert find_near_duplicates(held_out, [example("hi")], 0.8)["test"].num_found == 1


def test_large_splits_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "MAX_CHECKED", 4)
    rows = examples(one=10)
    found = find_near_duplicates({"test": rows}, rows, 0.8)["test"]
    assert (found.num_checked, found.num_found) == (4, 4)


def test_long_queries_are_hashed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "SHINGLES_PER_UPDATE", 3)
    found = find_near_duplicates({"test": [example("abcdefghij")]}, [example("abcdefghik")], 0.7)
    assert found["test"].num_found == 1


def test_audit_goes_to_json_and_back(make_config: MakeConfig) -> None:
    rows = [*examples(one=60), *(example(f"What is the sum of one, two, three and {number}?") for number in range(40))]
    audit = split([*rows, replace(rows[0], query_id="again")], make_config()).audit.to_dict()
    assert json.loads(json.dumps(audit)) == audit
    assert audit["num_read"] == 101
    assert audit["num_distinct"] == 100
    assert audit["exact_duplicates"] == 1
    assert audit["test"]["num_checked"] == 10
    assert audit["test"]["num_found"] > 0
    assert audit["test"]["examples"][0]["split"] == "test"


@pytest.mark.slow
def test_real_files_leak_119_test_queries(data_dir: Path, make_data_config: MakeConfig) -> None:
    config = make_data_config(source="routerdc", path=str(data_dir / "llmrouter"))
    data = load_source(config)
    splits = split_examples(data, config)
    rows = [*splits.train, *splits.validation, *splits.test]
    assert splits.audit.source_test_in_train == 119
    assert splits.audit.exact_duplicates == 119
    assert splits.audit.normalised_duplicates == 0
    assert splits.audit.conflicting_duplicates == 50
    assert splits.audit.num_distinct == len(rows) == 5989
    assert {row.task for row in splits.test} == {row.task for row in splits.train}
    means = {name: sum(row.scores[name] for row in rows) / len(rows) for name in data.candidate_names}
    assert sum(means.values()) / len(means) == pytest.approx(0.427, abs=0.0005)
    assert max(means.values()) == pytest.approx(0.620, abs=0.0005)
    assert sum(max(row.scores.values()) for row in rows) / len(rows) == pytest.approx(0.798, abs=0.0005)
