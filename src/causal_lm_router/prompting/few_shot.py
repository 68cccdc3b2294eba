"""Few-shot prompts: training queries with their labels before the query, in the words of the prompt."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from causal_lm_router.prompting.prompt import QUERY, PromptFormat
from causal_lm_router.routing import RoutingExample

SHOT_CHARS = 200
"""Characters that a shot keeps of its query."""
_NO_PLACEHOLDERS = str.maketrans("{}", "()")


def draw_shots(
    train: Sequence[RoutingExample], labels: Mapping[str, str], num_shots: int, seed: int
) -> list[RoutingExample]:
    """Return `num_shots` training examples drawn by the seed, or all where there are fewer.

    Labels take turns, so that the shots show as many candidates as possible, each about equally often.
    """
    order = np.random.default_rng(seed).permutation(len(train))
    num_drawn: Counter[str] = Counter()
    # For each example in drawn order: how many of its label came before.
    turns = []
    for index in order:
        label = labels[train[index].query_id]
        turns.append(num_drawn[label])
        num_drawn[label] += 1
    # First every label's first example, then every label's second.
    return [train[order[place]] for place in np.argsort(turns, kind="stable")[:num_shots]]


def few_shot_template(prompt: PromptFormat, shots: Sequence[RoutingExample], labels: Mapping[str, str]) -> str:
    """Return the prompt's template with the shots before the line that holds the query.

    A shot is that line and what follows it, filled with a query and the target of its label, and an empty line. Its
    query is one line of at most SHOT_CHARS characters, with round brackets for curly ones: it holds no placeholder.
    """
    # A shot repeats the template from the start of the query's line to the end.
    begin = prompt.template.rfind("\n", 0, prompt.template.index(QUERY)) + 1
    block = replace(prompt, template=prompt.template[begin:])
    targets = dict(zip(prompt.targets.candidates, prompt.targets.texts, strict=True))
    texts = []
    for shot in shots:
        # One short line, and no {query} in it that a later replacement would fill.
        query = " ".join(prompt.neutralise(shot.query).split())[:SHOT_CHARS].translate(_NO_PLACEHOLDERS)
        texts.append(f"{block.prompt_text(query)}{targets[labels[shot.query_id]]}\n\n")
    return prompt.template[:begin] + "".join(texts) + block.template
