"""Routing data from any supported format: `load_source` picks the reader that `data.source` names."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Protocol

from causal_lm_router.config import (
    DataConfig,
    FileDataConfig,
    HubDataConfig,
    JsonlDataConfig,
    LLMRouterDataConfig,
    OwnDataConfig,
    RouteLLMDataConfig,
    RouterBenchDataConfig,
    RouterDCDataConfig,
    SimulatedDataConfig,
    Split,
)
from causal_lm_router.config.own_code import load_function
from causal_lm_router.routing import RoutingData, RoutingExample, check_cost, check_pool, check_query, check_score


class LoadSource(Protocol):
    """A reader of the user's own, for `data=own`."""

    def __call__(self, config: OwnDataConfig) -> RoutingData:
        """Return the examples and the pool; `config.path` and `config.options` are the user's to use."""


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
    warnings = tuple(dict.fromkeys((*train.warnings, *test.warnings)))
    return RoutingData(examples, train.pool, (*train.skipped_rows, *test.skipped_rows), warnings)


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
        case OwnDataConfig():
            return _load_own(config)
    raise TypeError(f"no reader takes a {type(config).__name__}")


def _load_own(config: OwnDataConfig) -> RoutingData:
    """Read by the user's function, and hold what it returns to the promise of `load_source`."""
    load: LoadSource = load_function("data.function", config.function, LoadSource)
    data = load(config)
    if not isinstance(data, RoutingData):
        raise ValueError(f"data.function must return a RoutingData, got a {type(data).__name__}")
    check_pool(data.candidate_names)
    seen: set[str] = set()
    for number, example in enumerate(data.examples, start=1):
        try:
            _check_own(example, data.candidate_names, config.max_query_chars)
            if example.query_id in seen:
                raise ValueError("query_id must be unique")
        except ValueError as error:
            raise ValueError(f"data.function: example {number} ({example.query_id!r}): {error}") from error
        seen.add(example.query_id)
    return data


def _check_own(example: RoutingExample, candidate_names: list[str], max_query_chars: int) -> None:
    check_query(example.query, max_query_chars)
    for key, check_value in (("scores", check_score), ("costs", check_cost)):
        values = getattr(example, key)
        if values is None and key == "costs":
            continue
        if list(values) != candidate_names:
            raise ValueError(f"{key} must be those of the pool in its order, {candidate_names}, got {list(values)}")
        for value in values.values():
            check_value(value)
