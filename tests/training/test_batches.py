"""Steps and micro-batches: nothing lost or repeated, order from (seed, epoch) alone, bounded memory, shared ranks."""

import random
from dataclasses import dataclass

import datasets
import numpy as np
import pytest
import torch

from causal_lm_router.training.batches import Step, StepLoader, cut_micro_batches, plan_epoch

PAD = 0
LENGTHS = random.Random(0).choices(range(5, 200), k=203)


def flat(groups: list[list[int]]) -> list[int]:
    return [row for group in groups for row in group]


@pytest.mark.parametrize("rows_per_step", [1, 8, 50, 203, 1000])
def test_every_row_stands_in_one_step(rows_per_step: int) -> None:
    plan = plan_epoch(LENGTHS, rows_per_step, seed=3, epoch=2)
    assert sorted(flat(plan)) == list(range(203))
    sizes = sorted(map(len, plan), reverse=True)
    assert sizes[:-1] == [rows_per_step] * (len(sizes) - 1)
    assert len(sizes) == -(-203 // rows_per_step)


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    plan = plan_epoch(LENGTHS, 8, seed=3, epoch=2)
    np.random.seed(1)
    random.seed(1)
    torch.manual_seed(1)
    assert plan_epoch(LENGTHS, 8, seed=3, epoch=2) == plan
    assert plan_epoch(LENGTHS, 8, seed=3, epoch=1) != plan
    assert plan_epoch(LENGTHS, 8, seed=2, epoch=2) != plan
    assert plan_epoch(LENGTHS, 8, seed=2, epoch=3) != plan


def test_the_same_length_everywhere_is_a_plain_shuffle() -> None:
    firsts = {plan_epoch([7] * 10, 1, seed=0, epoch=epoch)[0][0] for epoch in range(100)}
    assert firsts == set(range(10))


def test_a_step_holds_similar_lengths() -> None:
    def num_padded(plan: list[list[int]]) -> int:
        return sum(len(step) * max(LENGTHS[row] for row in step) for step in plan)

    in_order = [list(range(start, min(start + 8, 203))) for start in range(0, 203, 8)]
    assert num_padded(in_order) > 1.5 * sum(LENGTHS)
    assert num_padded(plan_epoch(LENGTHS, 8, seed=0, epoch=0)) < 1.15 * sum(LENGTHS)


@pytest.mark.parametrize(
    ("max_tokens", "groups"),
    [
        (1, [[2], [0], [1], [4], [3]]),
        (8, [[2], [0], [1, 4], [3]]),
        (10, [[2], [0, 1], [4, 3]]),
        (15, [[2], [0, 1, 4], [3]]),
        (18, [[2, 0], [1, 4, 3]]),
        (45, [[2, 0, 1, 4, 3]]),
    ],
)
def test_micro_batches_by_token_budget(max_tokens: int, groups: list[list[int]]) -> None:
    assert cut_micro_batches([0, 1, 2, 3, 4], [5, 3, 9, 2, 3], max_tokens) == groups


@pytest.mark.parametrize(
    ("max_tokens", "groups"),
    [(9, [[2], [0, 1], [4, 3]]), (10, [[2], [0, 1, 4], [3]]), (14, [[2, 0], [1, 4, 3]]), (19, [[2, 0, 1, 4, 3]])],
)
def test_packed_micro_batches_count_the_shared_beginning_once(max_tokens: int, groups: list[list[int]]) -> None:
    assert cut_micro_batches([0, 1, 2, 3, 4], [6, 4, 10, 3, 4], max_tokens, num_shared=2) == groups


@pytest.mark.parametrize(("beginning", "num_shared"), [([5, 6, 7], 3), ([], 0)])
def test_a_loader_finds_the_shared_beginning_of_packed_rows(beginning: list[int], num_shared: int) -> None:
    # 1,100 rows of three tokens more: more than are read at once.
    ids = [[*beginning, row % 50 + 10, 9, 9] for row in range(1100)]
    columns = {"num_target_tokens": [2], "weight": [1.0], "utilities": [[]], "num_tokens": [num_shared + 3]}
    rows = datasets.Dataset.from_dict({"input_ids": ids, **{name: value * 1100 for name, value in columns.items()}})
    steps = list(StepLoader(rows, PAD, 100, num_shared + 3 * 10, 0, Place(), packs=True))
    assert {len(part.input_ids) for step in steps for part in step.micro_batches} == {10}


def test_micro_batches_stay_in_the_budget() -> None:
    for max_tokens in (200, 500, 4096):
        groups = cut_micro_batches(range(203), LENGTHS, max_tokens)
        assert sorted(flat(groups)) == list(range(203))
        assert max(len(group) * max(LENGTHS[row] for row in group) for group in groups) <= max_tokens


@dataclass
class Place:
    """How far training is, and which process this is."""

    global_step: int = 0
    global_rank: int = 0
    world_size: int = 1


def make_loader(
    place: Place, num_rows: int = 11, rows_per_step: int = 4, max_tokens: int = 12, seed: int = 5
) -> StepLoader:
    """Rows of 3 to 6 tokens, the last two of them the target; row n consists of the tokens n + 10."""
    lengths = [3 + row % 4 for row in range(num_rows)]
    rows = datasets.Dataset.from_dict(
        {
            "input_ids": [[row + 10] * lengths[row] for row in range(num_rows)],
            "num_tokens": lengths,
            "num_target_tokens": [2] * num_rows,
            "weight": [1.0] * num_rows,
            "utilities": [[]] * num_rows,
        }
    )
    return StepLoader(rows, PAD, rows_per_step, max_tokens, seed, place)


def taught_rows(step: Step) -> list[int]:
    """The rows whose targets a step teaches."""
    last = [
        token
        for part in step.micro_batches
        for token, weight in zip(part.labels[:, -1].tolist(), part.weights.tolist(), strict=True)
        if weight
    ]
    return sorted(token - 10 for token in last)


def test_an_epoch_of_steps() -> None:
    loader = make_loader(Place())
    steps = list(loader)
    assert len(loader) == len(steps) == 3
    assert sorted(row for step in steps for row in taught_rows(step)) == list(range(11))
    assert sorted(len(taught_rows(step)) for step in steps) == [3, 4, 4]
    for step in steps:
        assert step.total_weight == 2 * len(taught_rows(step))
        assert all(part.input_ids.numel() <= 12 for part in step.micro_batches)
        assert all(part.labels.shape[1] == 2 for part in step.micro_batches)


def test_the_next_epoch_has_another_order() -> None:
    first, second = ([taught_rows(step) for step in make_loader(Place(global_step=start))] for start in (0, 3))
    assert len(first) == len(second) == 3
    assert first != second


@pytest.mark.parametrize("done", range(6))
def test_iterating_starts_at_the_number_of_steps_done(done: int) -> None:
    epoch = list(make_loader(Place(global_step=done - done % 3)))
    rest = list(make_loader(Place(global_step=done)))
    assert len(rest) == 3 - done % 3
    for step, expected in zip(rest, epoch[done % 3 :], strict=True):
        assert step.total_weight == expected.total_weight
        for part, expected_part in zip(step.micro_batches, expected.micro_batches, strict=True):
            assert part.hidden_states is expected_part.hidden_states is None
            assert all(
                torch.equal(mine, expected) for mine, expected in zip(part[:-1], expected_part[:-1], strict=True)
            )


def test_one_loader_serves_all_epochs() -> None:
    place = Place()
    loader = make_loader(place)
    first = [taught_rows(step) for step in loader]
    place.global_step = 3
    second = [taught_rows(step) for step in loader]
    assert second == [taught_rows(step) for step in make_loader(Place(global_step=3))] != first


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_out_the_rows_of_a_step(world_size: int) -> None:
    alone = list(make_loader(Place()))
    shares = [list(make_loader(Place(global_rank=rank, world_size=world_size))) for rank in range(world_size)]
    for together, *parts in zip(alone, *shares, strict=True):
        assert sorted(row for part in parts for row in taught_rows(part)) == taught_rows(together)
        assert {part.total_weight for part in parts} == {together.total_weight}


def test_a_rank_without_rows_still_has_a_micro_batch_that_teaches_nothing() -> None:
    # 9 rows in steps of 4: one step has a single row, and the second process none of it.
    shares = [list(make_loader(Place(global_rank=rank, world_size=2), num_rows=9)) for rank in range(2)]
    assert sorted(len(taught_rows(step)) for step in shares[0]) == [1, 2, 2]
    assert sorted(len(taught_rows(step)) for step in shares[1]) == [0, 2, 2]
    assert all(step.micro_batches for step in shares[1])
    assert sorted(step.total_weight for step in shares[1]) == [2, 8, 8]


def test_state_of_another_order_is_refused() -> None:
    state = make_loader(Place()).state_dict()
    make_loader(Place(global_step=2)).load_state_dict(state)
    make_loader(Place(), max_tokens=1000).load_state_dict(state)
    for other in ({"num_rows": 12}, {"rows_per_step": 2}, {"seed": 6}):
        with pytest.raises(ValueError, match=r"checkpoint: was made with .*; start a new run folder"):
            make_loader(Place(), **other).load_state_dict(state)


def make_pair_loader(place: Place, *, packs: bool, max_tokens: int = 60) -> StepLoader:
    """Seven queries of 9 to 15 tokens with three rows each, which end in 1 to 3 tokens of their own."""
    rows = [[query + 10] * (9 + query) + [90 + pair] * (1 + pair) for query in range(7) for pair in range(3)]
    columns = {
        "input_ids": rows,
        "num_tokens": [len(row) for row in rows],
        "num_target_tokens": [0] * len(rows),
        "weight": [1.0] * len(rows),
        "utilities": [[0.5]] * len(rows),
    }
    return StepLoader(
        datasets.Dataset.from_dict(columns), PAD, 2, max_tokens, seed=0, progress=place, packs=packs, rows_per_query=3
    )


def pairs_of(step: Step) -> list[list[tuple[int, int]]]:
    """The query and the number of each row, by micro-batch."""
    lasts = [part.input_ids[:, -1].tolist() for part in step.micro_batches]
    firsts = [[min(set(row) - {PAD}) for row in part.input_ids.tolist()] for part in step.micro_batches]
    return [[(q - 10, p - 90) for q, p in zip(*pair, strict=True)] for pair in zip(firsts, lasts, strict=True)]


@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("world_size", [1, 2])
def test_the_rows_of_a_query_stay_in_one_step(packs: bool, world_size: int) -> None:
    loaders = [
        make_pair_loader(Place(global_rank=rank, world_size=world_size), packs=packs) for rank in range(world_size)
    ]
    assert [len(loader) for loader in loaders] == [4] * world_size
    seen = []
    for steps in zip(*loaders, strict=True):
        taught = [
            row
            for step in steps
            for part, rows in zip(step.micro_batches, pairs_of(step), strict=True)
            for row, weight in zip(rows, part.weights.tolist(), strict=True)
            if weight
        ]
        queries = {query for query, _ in taught}
        assert sorted(taught) == [(query, pair) for query in sorted(queries) for pair in range(3)]
        assert {step.total_weight for step in steps} == {3 * len(queries)}
        seen += queries
    assert sorted(seen) == list(range(7))


def test_packed_queries_have_micro_batches_of_their_own() -> None:
    for step in make_pair_loader(Place(), packs=True):
        assert [sorted(rows) for rows in pairs_of(step)] == [
            [(rows[0][0], pair) for pair in range(3)] for rows in pairs_of(step)
        ]
    # With 16 tokens a query of 12 has room for its rest of 3, or for those of 2 and 1.
    parted = [
        sorted(p for _, p in rows)
        for step in make_pair_loader(Place(), packs=True, max_tokens=15)
        for rows in pairs_of(step)
    ]
    assert [0, 1] in parted
    assert [2] in parted


def test_padded_queries_share_micro_batches() -> None:
    assert max(len(rows) for step in make_pair_loader(Place(), packs=False) for rows in pairs_of(step)) > 3
