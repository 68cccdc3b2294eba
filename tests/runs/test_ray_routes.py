"""Routing over a Ray cluster: the routes of one process, in order, and what each actor takes of the cluster."""

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from causal_lm_router.config import RouteConfig
from causal_lm_router.config.compose import compose_on_run
from causal_lm_router.runs.ray_routes import CHUNK, RouterActor, route_on_ray, share_of_cluster
from causal_lm_router.runs.router import CausalLMRouter

CHUNKS: list[list[dict[str, Any]]] = [
    [{"query": f"What is {number} plus 3?", "id": number}, {"query": "Who?"}] for number in range(5)
]


def config_of(run: Path, **settings: object) -> RouteConfig:
    config = compose_on_run("route", run, ["inference=transformers", "inference.dtype=float32"])
    assert isinstance(config, RouteConfig)
    return replace(config, **settings)  # type: ignore[arg-type]


@pytest.mark.slow
def test_actors_give_the_routes_of_one_process_in_order(smoke_run: Path) -> None:
    config = config_of(smoke_run, num_actors=min(2, len(os.sched_getaffinity(0))))
    with CausalLMRouter.from_run(smoke_run, config) as router:
        expected = [router.route_batch(chunk) for chunk in CHUNKS]
    assert list(route_on_ray(config, CHUNKS)) == expected
    actor = RouterActor(config)
    assert pickle.loads(actor({CHUNK: [pickle.dumps(CHUNKS[0])]})[CHUNK][0]) == expected[0]


def test_each_actor_has_its_share_of_the_cluster() -> None:
    assert share_of_cluster(3, 1, {"CPU": 8.0}) == {"num_cpus": 2}
    assert share_of_cluster(3, 1, {"CPU": 8.0, "GPU": 4.0}) == {"num_gpus": 1}
    with pytest.raises(
        ValueError, match="num_actors must be at most 2 on this cluster, got 3: it has 2 CPUs and no GPU"
    ):
        share_of_cluster(3, 1, {"CPU": 2.0})
    with pytest.raises(ValueError, match=r"at most 2 .* it has 4 GPUs, 2 for each actor"):
        share_of_cluster(3, 2, {"CPU": 8.0, "GPU": 4.0})
