"""Routing over a cluster: chunks of queries go through Ray Data to actors, each of which holds a router.

Ray Data's own vLLM processor is not used: it makes one request a query, while likelihoods and walks over the token trie
take several, and its release is made for another version of vLLM. The actors run the code that one process runs, on
chunks of the same boundaries, so they give the same routes.
"""

import logging
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from causal_lm_router.config import RouteConfig
from causal_lm_router.runs.router import CausalLMRouter

Row = dict[str, Any]
CHUNK = "chunk"


class RouterActor:
    """Routes chunks with the weights of a run: a router that stays for as long as the actor lives."""

    def __init__(self, config: RouteConfig) -> None:
        self._router = CausalLMRouter.from_run(config.run_dir, config)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the routes of a chunk, as `CausalLMRouter.route_batch` gives them; both are pickled."""
        rows = pickle.loads(batch[CHUNK][0])
        return {CHUNK: [pickle.dumps(self._router.route_batch(rows))]}


def route_on_ray(config: RouteConfig, chunks: Iterable[Sequence[Row]]) -> Iterator[list[Row]]:
    """Yield the routes of every chunk, in order, made by `config.num_actors` routers on a Ray cluster.

    The cluster is the one that the environment variable RAY_ADDRESS names, else one of this machine that ends with the
    routing. Its nodes must see the run folder and the base model under the same paths. Queries wait in Ray's object
    store, so this process holds a chunk at a time. An actor that dies is started again, and its chunk routed anew.

    Raises:
        ValueError: the cluster has too few GPUs or CPUs for so many actors.
    """
    assert config.num_actors is not None, "routing in this process needs no cluster"
    # Ray's own log and bars would stand between ours. Its parts read their levels when they are imported.
    settings = {"RAY_DATA_LOG_LEVEL": "ERROR", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"}
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    import pyarrow
    import ray
    import ray.data

    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        # Pickled, since Arrow would fill the keys that some rows lack.
        refs: list[Any] = [ray.put(pyarrow.table({CHUNK: [pickle.dumps(list(chunk))]})) for chunk in chunks]
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        share: dict[str, Any] = share_of_cluster(config.num_actors, config.inference.tensor_parallel_size, resources)
        routed = ray.data.from_arrow_refs(refs).map_batches(
            RouterActor,
            fn_constructor_args=(config,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=config.num_actors),
            **share,
        )
        for batch in routed.iter_batches(batch_size=1):
            yield pickle.loads(batch[CHUNK][0])
    finally:
        ray.shutdown()


def share_of_cluster(num_actors: int, gpus_per_actor: int, resources: Mapping[str, float]) -> dict[str, int]:
    """Return what each actor takes of a cluster: the GPUs of one engine where there are any, else a share of the CPUs.

    Raises:
        ValueError: there is not enough for all actors.
    """
    num_gpus = int(resources.get("GPU", 0))
    room = num_gpus // gpus_per_actor if num_gpus else int(resources["CPU"])
    if num_actors > room:
        has = f"{num_gpus} GPUs, {gpus_per_actor} for each actor" if num_gpus else f"{room} CPUs and no GPU"
        raise ValueError(f"num_actors must be at most {room} on this cluster, got {num_actors}: it has {has}")
    # Ray gives an actor as many threads as CPUs.
    return {"num_gpus": gpus_per_actor} if num_gpus else {"num_cpus": room // num_actors}
