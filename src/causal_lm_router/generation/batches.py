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
    num_alike: int = 1,
) -> list[Answer]:
    """Return the results of `answers`, which takes the numbers of a batch's prompts, in the prompts' order.

    Where every `num_alike` prompts begin alike, these are a batch: what they share is computed once.
    """
    order = list(range(len(prompts)))
    if num_alike > 1:
        batch_size = num_alike
    else:
        # Batches of similar length, since each is padded to its longest prompt.
        order.sort(key=lambda index: len(prompts[index]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    found: dict[int, Answer] = {}
    with progress_bar(unit=unit, total=len(prompts)) as bar:
        for batch in batches:
            found |= zip(batch, answers(batch), strict=True)
            bar.update(len(batch))
    return [found[index] for index in range(len(prompts))]
