"""Routing data from any supported format: `load_source` picks the reader that `data.source` names."""

import dataclasses
from collections.abc import Iterable, Iterator

from causal_lm_router.config import (
    DataConfig,
    FileDataConfig,
    HubDataConfig,
    JsonlDataConfig,
    LLMRouterDataConfig,
    RouteLLMDataConfig,
    RouterBenchDataConfig,
    RouterDCDataConfig,
    SimulatedDataConfig,
    Split,
)
from causal_lm_router.routing import RoutingData, RoutingExample


def load_source(config: DataConfig) -> RoutingData:
    """Return the examples, the pool and the skipped rows of the data `config` describes.

    Every example scores exactly the pool's candidates, in pool order, and query ids are unique.

    Raises:
        ValueError: the data cannot be used; the message names the key, or the file and the row.
    """
    if not isinstance(config, FileDataConfig) or config.test_path is None:
        return _load(config)
    # Each file is read as if it were the only one; then both must have the same pool.
    train = _load(dataclasses.replace(config, test_path=None))
    test = _load(dataclasses.replace(config, path=config.test_path, test_path=None))
    if test.candidate_names != train.candidate_names:
        raise ValueError(
            f"data.test_path={config.test_path!r} must have the candidates of data.path, {train.candidate_names}, "
            f"got {test.candidate_names}"
        )
    examples = [*_assign_split(train.examples, Split.train), *_assign_split(test.examples, Split.test)]
    return RoutingData(examples, train.pool, (*train.skipped_rows, *test.skipped_rows))


def _assign_split(examples: Iterable[RoutingExample], split: Split) -> Iterator[RoutingExample]:
    """Yield the examples with this split and with ids that start with its name: two files may use the same ids."""
    for example in examples:
        yield dataclasses.replace(example, query_id=f"{split}/{example.query_id}", source_split=split.value)


def _load(config: DataConfig) -> RoutingData:
    # Each reader is imported only when it is asked for: some need pandas, datasets or reasoning-gym.
    match config:
        case LLMRouterDataConfig():
            from causal_lm_router.data.sources import llmrouter

            return llmrouter.load(config)
        case RouterDCDataConfig():
            from causal_lm_router.data.sources import routerdc

            return routerdc.load(config)
        case RouteLLMDataConfig():
            from causal_lm_router.data.sources import routellm

            return routellm.load(config)
        case RouterBenchDataConfig():
            from causal_lm_router.data.sources import routerbench

            return routerbench.load(config)
        case JsonlDataConfig():
            from causal_lm_router.data.sources import jsonl

            return jsonl.load(config)
        case HubDataConfig():
            from causal_lm_router.data.sources import hub

            return hub.load(config)
        case SimulatedDataConfig():
            from causal_lm_router.data.sources import simulated

            return simulated.load(config)
    raise TypeError(f"no reader takes a {type(config).__name__}")
