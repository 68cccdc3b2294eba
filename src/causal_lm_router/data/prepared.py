"""The data of a run, prepared once: splits, labels, the pool and the best single candidate on train."""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from causal_lm_router.config import DataConfig, Split
from causal_lm_router.data.labels import best_single, choose_labels, drop_undecided
from causal_lm_router.data.sources import load_source
from causal_lm_router.data.split import RoutingSplits, split_examples
from causal_lm_router.data.train_means import TrainMeans, train_means
from causal_lm_router.data.transforms import rename_candidates, shrink_to_task, shuffle_scores
from causal_lm_router.routing import RoutingExample


@dataclass(frozen=True)
class PreparedData:
    """Splits with a label for every query.

    `train` holds the queries that training uses: if configured, without undecided ones and with scores shrunk to the
    mean of their task, or shuffled. `supervised` names the candidates that training may use, in pool order: all but the
    held-out.
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
        """Mean cost (USD) of every candidate on train; None unless all costs are known."""
        costs = self.train_means.costs
        return None if costs is None else dict(costs)

    @functools.cached_property
    def train_means(self) -> TrainMeans:
        """The candidates' means over all queries of the train split."""
        return train_means(self.splits.train, self.splits.pool)

    @functools.cached_property
    def content_hash(self) -> str:
        """Hash of queries, scores, costs and labels of every split, in their order."""
        content = hashlib.sha256()
        for split in (self.splits.train, self.splits.validation, self.splits.test):
            for row in split:
                said = (row.query_id, row.query, row.task, dict(row.scores), row.costs and dict(row.costs))
                content.update(json.dumps([*said, self.labels[row.query_id]]).encode())
            content.update(b"|")
        return content.hexdigest()[:12]

    def examples(self, split: Split, max_queries: int | None = None, seed: int = 0) -> list[RoutingExample]:
        """Return a split's examples, or `max_queries` of them drawn at random, the same for the same `seed`."""
        examples: list[RoutingExample] = getattr(self.splits, split.value)
        if max_queries is None or len(examples) <= max_queries:
            return examples
        chosen = np.random.default_rng(seed).choice(len(examples), size=max_queries, replace=False)
        # In the split's order, so that a part reads like the whole.
        return [examples[index] for index in sorted(chosen)]


def prepare_data(config: DataConfig) -> PreparedData:
    """Return the configured data: read, split and labelled.

    Labels of all splits are chosen with knowledge of train alone.

    Raises:
        ValueError: the data cannot be used, `data.held_out_candidates` does not fit the pool, or
            `data.keep_undecided=false` leaves nothing to train on.
    """
    splits = split_examples(rename_candidates(load_source(config), config.renamed_candidates), config)
    supervised = _leave_out(config.held_out_candidates, splits.candidate_names)
    # Ties break by knowledge of the unshrunk train split, for the labels of all splits.
    label = functools.partial(
        choose_labels, tie_break=config.tie_break, pool=splits.pool, train=splits.train, seed=config.split_seed
    )
    # Queries to evaluate on keep every candidate as a possible label: a held-out one can be their best.
    labels = label([*splits.validation, *splits.test], cost_weight=config.cost_weight)
    # Which queries are undecided is asked before shrinkage, which would make almost all scores differ.
    taught = shuffle_scores(splits.train, config.split_seed) if config.shuffle_train_scores else splits.train
    kept = taught if config.keep_undecided else drop_undecided(taught)
    kept_ids = {example.query_id for example in kept}
    shrunk = shrink_to_task(taught, config.task_shrinkage)
    labels |= label(shrunk, cost_weight=config.cost_weight, held_out=config.held_out_candidates)
    train = [example for example in shrunk if example.query_id in kept_ids]
    if not train:
        raise ValueError(
            "data.keep_undecided must be true for this data, got false: on every training query all candidates score "
            "the same, so none is left"
        )
    return PreparedData(splits, train, labels, best_single(splits.train, splits.pool), supervised)


def _leave_out(held_out: Sequence[str], candidate_names: Sequence[str]) -> tuple[str, ...]:
    """Return the candidates that are not held out, in pool order, and check that the setting fits the pool."""
    pool = f"the pool is {list(candidate_names)}"
    for name in held_out:
        if name not in candidate_names:
            raise ValueError(f"data.held_out_candidates must name candidates of the pool, got {name!r}; {pool}")
    supervised = tuple(name for name in candidate_names if name not in held_out)
    if len(supervised) < 2:
        raise ValueError(f"data.held_out_candidates must leave at least 2 candidates, got {list(held_out)}; {pool}")
    return supervised
