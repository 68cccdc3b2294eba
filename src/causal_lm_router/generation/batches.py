"""Prompts in batches of similar length."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from causal_lm_router.terminal import progress_bar

Answer = TypeVar("Answer")


def run_batches(
    prompts: Sequence[Sequence[int]],
    batch_size: int,
    answers: Callable[[list[int]], Sequence[Answer]],
    unit: str = "queries",
) -> list[Answer]:
    """Return the results of `answers`, which takes the numbers of a batch's prompts, in the prompts' order."""
    # Batches of similar length, since each is padded to its longest prompt.
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    found: dict[int, Answer] = {}
    with progress_bar(unit=unit, total=len(prompts)) as bar:
        for batch in batches:
            found |= zip(batch, answers(batch), strict=True)
            bar.update(len(batch))
    return [found[index] for index in range(len(prompts))]
