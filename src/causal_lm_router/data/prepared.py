"""Everything a run needs of its data, made once: splits, labels, the pool and the best single candidate on train."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from causal_lm_router.config import DataConfig, Split
from causal_lm_router.data.labels import best_single, choose_labels, drop_undecided
from causal_lm_router.data.sources import load_source
from causal_lm_router.data.split import RoutingSplits, split_examples
from causal_lm_router.data.transforms import rename_candidates, shrink_to_task
from causal_lm_router.routing import RoutingExample


@dataclass(frozen=True)
class PreparedData:
    """Splits with a label for every query. `train` is what training uses: without undecided queries if configured, and
    with scores shrunk to their task's mean if configured.

    `supervised` names the candidates that training may speak of, in pool order: all but those held out.
    """

    splits: RoutingSplits
    train: list[RoutingExample]
    labels: Mapping[str, str]
    best_single: str
    supervised: tuple[str, ...] | None = None

    @property
    def candidate_names(self) -> list[str]:
        """Candidate names in pool order."""
        return [candidate.name for candidate in self.splits.pool]

    @property
    def mean_costs(self) -> dict[str, float] | None:
        """Mean cost (USD) of every candidate on train; None unless all are known."""
        costs = [example.costs for example in self.splits.train if example.costs is not None]
        if len(costs) < len(self.splits.train):
            return None
        return {name: math.fsum(row[name] for row in costs) / len(costs) for name in self.candidate_names}

    def examples(self, split: Split, max_queries: int | None = None, seed: int = 0) -> list[RoutingExample]:
        """Return a split's examples, or a fixed random part of them that depends on `seed` alone."""
        examples: list[RoutingExample] = getattr(self.splits, split.value)
        if max_queries is None or len(examples) <= max_queries:
            return examples
        chosen = np.random.default_rng(seed).choice(len(examples), size=max_queries, replace=False)
        return [examples[index] for index in sorted(chosen)]


def prepare_data(config: DataConfig) -> PreparedData:
    """Return the configured data, read, split and labelled.

    Labels of all splits are chosen with what is known from train alone. Raises ValueError for unusable data, and where
    `keep_undecided=false` leaves nothing to train on.
    """
    splits = split_examples(rename_candidates(load_source(config), config.renamed_candidates), config)
    supervised = tuple(name for name in splits.candidate_names if name not in config.held_out_candidates)
    if len(supervised) < 2 or not set(config.held_out_candidates) <= set(splits.candidate_names):
        raise ValueError(
            f"data.held_out_candidates={config.held_out_candidates}: allowed is some of {splits.candidate_names}, but "
            "for at least 2"
        )
    label = functools.partial(
        choose_labels, tie_break=config.tie_break, pool=splits.pool, train=splits.train, seed=config.split_seed
    )
    labels = label([*splits.validation, *splits.test], cost_weight=config.cost_weight)
    kept = splits.train if config.keep_undecided else drop_undecided(splits.train)
    kept_ids = {example.query_id for example in kept}
    shrunk = shrink_to_task(splits.train, config.task_shrinkage)
    labels |= label(shrunk, cost_weight=config.cost_weight, held_out=config.held_out_candidates)
    train = [example for example in shrunk if example.query_id in kept_ids]
    if not train:
        raise ValueError("data.keep_undecided=False: leaves no training query, all candidates score the same on all")
    return PreparedData(splits, train, labels, best_single(splits.train, splits.pool), supervised)
