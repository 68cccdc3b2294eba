"""Routing data from any supported format: `load_source` picks the reader that `data.source` names."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Protocol

from causal_lm_router.config import (
    CsvDataConfig,
    DataConfig,
    FileDataConfig,
    HubDataConfig,
    JsonlDataConfig,
    LLMRouterDataConfig,
    MmluProDataConfig,
    OwnDataConfig,
    PreferencesDataConfig,
    RouteLLMDataConfig,
    RouterBenchDataConfig,
    RouterDCDataConfig,
    SimulatedDataConfig,
    Split,
)
from causal_lm_router.config.own_code import load_function
from causal_lm_router.data.sources.rows import ExampleCollector
from causal_lm_router.routing import RoutingData, RoutingExample, check_pool, describe_other_pool


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
    names = train.candidate_names
    if set(test.candidate_names) != set(names):
        raise ValueError(
            f"data.test_path={config.test_path!r} must have the candidates of data.path: "
            f"{describe_other_pool(test.candidate_names, names)}"
        )
    tests = (example.reordered(names) for example in test.examples)
    examples = [*_assign_split(train.examples, Split.train), *_assign_split(tests, Split.test)]
    warnings = tuple(dict.fromkeys((*train.warnings, *test.warnings)))
    return RoutingData(examples, train.pool, (*train.skipped_rows, *test.skipped_rows), warnings)


def _assign_split(examples: Iterable[RoutingExample], split: Split) -> Iterator[RoutingExample]:
    """Yield the examples with this split and with ids that start with its name: two files may use the same ids.

    Validation queries stay where they are, since they are chosen out of what is no test.

    Raises:
        ValueError: an example of the training file is one of the test split, or the other way round.
    """
    for example in examples:
        own = example.source_split or split.value
        if own != split and (own != Split.validation or split is Split.test):
            key = "data.test_path" if split is Split.test else "data.path"
            raise ValueError(f"{key} must hold no {own} queries where data.test_path is set, got {example.query_id!r}")
        yield dataclasses.replace(example, query_id=f"{split}/{example.query_id}", source_split=own)


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
        case MmluProDataConfig():
            from causal_lm_router.data.sources import mmlu_pro

            return mmlu_pro.load(config)
        case PreferencesDataConfig():
            from causal_lm_router.data.sources import preferences

            return preferences.load(config)
        case JsonlDataConfig():
            from causal_lm_router.data.sources import jsonl

            return jsonl.load(config)
        case CsvDataConfig():
            from causal_lm_router.data.sources import csv

            return csv.load(config)
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
    # Examples go the way of the rows of every other source, so that they are held to the same rules.
    collector = ExampleCollector(config, data.pool)
    for number, example in enumerate(data.examples, start=1):
        with collector.row(f"data.function: example {number}"):
            if not isinstance(example, RoutingExample):
                raise ValueError(f"it must be a RoutingExample, got a {type(example).__name__}")
            values = (example.scores, example.costs, example.task, example.query_id, example.source_split)
            collector.add(example.query, *values, expected=example.expected_scores)
    checked = collector.data()
    skipped, warnings = (*data.skipped_rows, *checked.skipped_rows), (*data.warnings, *checked.warnings)
    return dataclasses.replace(checked, skipped_rows=skipped, warnings=warnings)
