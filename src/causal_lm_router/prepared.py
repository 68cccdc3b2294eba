"""Everything a run needs of its data, made once: splits, labels, the pool and the best single candidate on train."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from causal_lm_router.config import DataConfig, Split
from causal_lm_router.labels import best_single, choose_labels, drop_undecided
from causal_lm_router.routing import RoutingExample
from causal_lm_router.sources import load_source
from causal_lm_router.split import RoutingSplits, split_examples


@dataclass(frozen=True)
class PreparedData:
    """Splits with a label for every query. `train` is what training uses: without undecided queries if configured."""

    splits: RoutingSplits
    train: list[RoutingExample]
    labels: Mapping[str, str]
    best_single: str

    @property
    def names(self) -> list[str]:
        """Candidate names in pool order."""
        return [candidate.name for candidate in self.splits.pool]

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
    splits = split_examples(load_source(config), config)
    everything = [*splits.train, *splits.validation, *splits.test]
    labels = choose_labels(
        everything, config.tie_break, splits.pool, splits.train, config.split_seed, config.cost_weight
    )
    train = splits.train if config.keep_undecided else drop_undecided(splits.train)
    if not train:
        raise ValueError("data.keep_undecided=False: leaves no training query, all candidates score the same on all")
    return PreparedData(splits, train, labels, best_single(splits.train, splits.pool))
