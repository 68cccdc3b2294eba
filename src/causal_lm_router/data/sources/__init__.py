"""Routing data from any supported format: `load_source` picks the reader that `data.source` names."""

import dataclasses
from collections.abc import Iterable, Iterator

from causal_lm_router.config import DataConfig, Source, Split
from causal_lm_router.routing import RoutingData, RoutingExample


def load_source(config: DataConfig) -> RoutingData:
    """Return the examples, the pool and the skipped rows of the data `config` describes.

    Every example scores exactly the pool's candidates, in pool order, and query ids are unique. Raises ValueError that
    names the key, or the file and the row, for data that cannot be used.
    """
    if config.test_path is None:
        return _load(config)
    train = _load(dataclasses.replace(config, test_path=None))
    test = _load(dataclasses.replace(config, path=config.test_path, test_path=None))
    if test.candidate_names != train.candidate_names:
        pools = f"{test.candidate_names}, those of data.path are {train.candidate_names}"
        raise ValueError(f"data.test_path={config.test_path!r}: its candidates are {pools}")
    examples = [*_assigned(train.examples, Split.train), *_assigned(test.examples, Split.test)]
    return RoutingData(examples, train.pool, (*train.skipped_rows, *test.skipped_rows))


def _assigned(examples: Iterable[RoutingExample], split: Split) -> Iterator[RoutingExample]:
    """Yield the examples as the split's own; ids start with its name, since two files may number their rows alike."""
    for example in examples:
        yield dataclasses.replace(example, query_id=f"{split}/{example.query_id}", source_split=split.value)


def _load(config: DataConfig) -> RoutingData:
    # Each reader is imported only when it is asked for: some need pandas, datasets or reasoning-gym.
    match config.source:
        case Source.llmrouter:
            from causal_lm_router.data.sources import llmrouter

            return llmrouter.load(config)
        case Source.routerdc:
            from causal_lm_router.data.sources import routerdc

            return routerdc.load(config)
        case Source.routellm:
            from causal_lm_router.data.sources import routellm

            return routellm.load(config)
        case Source.routerbench:
            from causal_lm_router.data.sources import routerbench

            return routerbench.load(config)
        case Source.jsonl:
            from causal_lm_router.data.sources import jsonl

            return jsonl.load(config)
        case Source.hub:
            from causal_lm_router.data.sources import hub

            return hub.load(config)
        case Source.simulated:
            from causal_lm_router.data.sources import simulated

            return simulated.load(config)
