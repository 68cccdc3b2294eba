"""Routing data from any supported format: `load_source` picks the reader that `data.source` names."""

from causal_lm_router.config import DataConfig, Source
from causal_lm_router.routing import RoutingData


def load_source(config: DataConfig) -> RoutingData:
    """Return the examples, the pool and the skipped rows of the data `config` describes.

    Every example scores exactly the pool's candidates, in pool order, and query ids are unique. Raises ValueError that
    names the key, or the file and the row, for data that cannot be used.
    """
    # Each reader is imported only when it is asked for: some need pandas, datasets or reasoning-gym.
    match config.source:
        case Source.llmrouter:
            from causal_lm_router.sources import llmrouter

            return llmrouter.load(config)
        case Source.routerdc:
            from causal_lm_router.sources import routerdc

            return routerdc.load(config)
        case Source.routellm:
            from causal_lm_router.sources import routellm

            return routellm.load(config)
        case Source.routerbench:
            from causal_lm_router.sources import routerbench

            return routerbench.load(config)
        case Source.jsonl:
            from causal_lm_router.sources import jsonl

            return jsonl.load(config)
        case Source.hub:
            from causal_lm_router.sources import hub

            return hub.load(config)
        case Source.simulated:
            from causal_lm_router.sources import simulated

            return simulated.load(config)
