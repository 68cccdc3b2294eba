"""CausalLMRouter: routes queries from Python, with a run folder or with a configuration file of LLMRouter's."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from causal_lm_router.config import OutcomeTargetConfig, TargetKind, TrainConfig
from causal_lm_router.config.compose import compose_on_run
from causal_lm_router.config.permissions import take_from_folder
from causal_lm_router.config.resolve import resolve_config
from causal_lm_router.config.run_config import load_run_config
from causal_lm_router.data.neighbours import read_scored_queries
from causal_lm_router.generation.decoder import Decoder, Decoding
from causal_lm_router.generation.generator import Generator
from causal_lm_router.generation.joined_calls import JoinedCalls
from causal_lm_router.models.embeddings import Embedder
from causal_lm_router.models.precision import resolve_precision
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.prompting.parse import called_candidate
from causal_lm_router.routing import ParsedRoute, check_pool, check_query, check_score
from causal_lm_router.runs.llmrouter_yaml import LLMRouterFiles, read_llmrouter_yaml
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.session import EMBEDDING, make_encoder, make_generator
from causal_lm_router.runs.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class Route:
    """The route of one query."""

    called: str | None
    """The LLM to call; None after a parse failure without fallback."""
    parsed: ParsedRoute
    """What the generation names, or why it names no LLM."""
    generation: str
    """The generated text."""
    predicted: Mapping[str, float] | None = None
    """Candidate -> predicted score (0..1), under `decoding=scored`."""


class CausalLMRouter:
    """Routes queries with the weights of a run.

    The engine starts at the first route and stays; `close` (or leaving a `with` block) ends it. Several threads may
    share a router: calls that come while one is being answered are answered together after it.
    """

    def __init__(self, yaml_path: str | Path) -> None:
        """Read a causal-LM configuration file of LLMRouter's; see `llmrouter_yaml` for its keys.

        Nothing is loaded yet: train with `CausalLMRouterTrainer(router=router).train()`, or route if a run is there.

        Raises:
            ValueError: an unknown key or a bad value.
            FileNotFoundError: the file, or a data file it names, is missing.
        """
        config, files = read_llmrouter_yaml(Path(yaml_path))
        self._set_up(config, files, RunFolder(files.load_run_dir))

    def _set_up(self, config: TrainConfig, files: LLMRouterFiles | None, folder: RunFolder) -> None:
        self.config, self.files, self._folder = config, files, folder
        self._loaded: tuple[Encoder, Generator] | None = None
        self._embed: Embedder | None = None
        self._added: list[_AddedCandidate] = []
        self._workbench = Workbench()
        # Neither vLLM nor the weights may be shared between threads, nor be closed while they answer.
        self._lock = threading.Lock()
        self._joined = JoinedCalls(self._decode)

    @classmethod
    def from_run(
        cls, run_dir: str | Path, config: TrainConfig | None = None, *, overrides: Sequence[str] = ()
    ) -> "CausalLMRouter":
        """Return the router of a run folder, with the run's own settings.

        `overrides` change those that routing honours: `from_run(folder, overrides=["decoding=scored"])`. A whole
        `config` takes their place, as the `route` command has made it.

        Raises:
            FileNotFoundError: the folder holds no trained router.
            ValueError: an override that routing does not honour or that cannot be used, overrides beside a `config`, or
                a permission in the run's config, which counts only where it is given again.
        """
        if overrides and config is not None:
            raise ValueError(f"overrides must be empty where a config is given, got {list(overrides)}")
        if overrides:
            config = compose_on_run("route", run_dir, overrides)
        router = cls.__new__(cls)
        if config is None:
            settings = take_from_folder(run_dir, load_run_config(Path(run_dir)), given=(), command="route")
            config = resolve_config({**settings, "run_dir": str(run_dir)}, TrainConfig)
        router._set_up(config, None, RunFolder(Path(run_dir)))
        router._folder.read_metadata()
        return router

    def route(self, queries: Sequence[str]) -> list[Route]:
        """Return the route of every query, in order.

        Raises:
            ValueError: a query is empty, longer than `data.max_query_chars`, or no text.
        """
        for number, query in enumerate(queries, start=1):
            try:
                check_query(query, self.config.data.max_query_chars)
            except ValueError as error:
                raise ValueError(f"query {number} of {len(queries)}: {error}") from None
        if not queries:
            return []
        decodings = self._joined(queries)
        fallback = self.config.parsing.fallback_candidate
        return [
            Route(
                called=called_candidate(decoding.route, fallback),
                parsed=decoding.route,
                generation=decoding.generation.text,
                predicted=decoding.predicted,
            )
            for decoding in decodings
        ]

    def add_candidate(
        self, name: str, queries: Sequence[str], scores: Sequence[float], mean_cost: float | None = None
    ) -> None:
        """Let a router of `target=outcome` route to a further candidate, which it was not trained on.

        `scores` (0 to 1) are those of the candidate on `queries`, any at all; the more, the better it is known. One
        without a score cannot be routed to. `mean_cost` (USD a query) is needed under `decoding.cost_weight`. The run
        folder stays as it is.

        Raises:
            ValueError: the router has another target, the name is in the pool or cannot be used, a query or score
                cannot be used, there are none or not a score for each query, or the cost is missing.
        """
        kind = self.config.target.kind
        if kind is not TargetKind.outcome:
            raise ValueError(f"target.kind must be outcome to add a candidate without training, got {kind.value!r}")
        check_pool([*self._candidate_names(), name])
        if len(queries) != len(scores) or not scores:
            raise ValueError(f"scores must be one for each query, at least 1, got {len(scores)} of {len(queries)}")
        if self.config.decoding.cost_weight and mean_cost is None:
            raise ValueError("mean_cost must be a number of USD under decoding.cost_weight, got None")
        for query, score in zip(queries, scores, strict=True):
            check_query(query, self.config.data.max_query_chars)
            check_score(score)
        with self._lock:
            self._added.append(_AddedCandidate(name, tuple(queries), tuple(map(float, scores)), mean_cost))
            if self._loaded is not None:
                # The weights stay; the encoder knows the pool.
                self._loaded = self._make_encoder()[1], self._loaded[1]

    def _candidate_names(self) -> list[str]:
        return [*self._folder.read_metadata().candidate_names, *(one.name for one in self._added)]

    def _mean_costs(self) -> dict[str, float] | None:
        known = self._folder.read_metadata().mean_costs
        if known is None or not self.config.decoding.cost_weight:
            return None
        return {**known, **{one.name: one.mean_cost for one in self._added if one.mean_cost is not None}}

    def _decode(self, queries: Sequence[str]) -> list[Decoding]:
        config = self.config
        with self._lock:
            encoder, generator = self._load()
            mean_costs = self._mean_costs()
            decoder = Decoder(generator, encoder, config.decoding, config.objective, config.parsing, mean_costs)
            return decoder.decode(config.decoding.method, encoder.encode_prompts(queries))

    def route_single(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """Return the query's dictionary (its text under `query`) with `model_name`, the LLM to call, added.

        `model_name` is None where the generation names no LLM and no fallback is set; `parse_failure` says why.
        """
        return self.route_batch([query])[0]

    def route_batch(self, batch: Sequence[Mapping[str, Any] | str] | None = None) -> list[dict[str, Any]]:
        """Return a dictionary per query as `route_single` does; without `batch`, for the YAML's test queries.

        No LLM is called: the routes are returned, not the answers.
        """
        if batch is None:
            if self.files is None:
                raise ValueError(
                    "batch must be a list of queries, got None: only a router made from a YAML file has test queries"
                )
            batch = self.files.test_queries(self.config.data.max_query_chars)
        rows = [{"query": row} if isinstance(row, str) else dict(row) for row in batch]
        routes = self.route([row.get("query") for row in rows])  # type: ignore[misc]
        return [{**row, **_answer(route)} for row, route in zip(rows, routes, strict=True)]

    def close(self) -> None:
        """End the engine; the next route starts it again."""
        with self._lock:
            if self._loaded is not None:
                self._loaded[1].close()
                self._loaded = None
                self._workbench.close()

    def __enter__(self) -> "CausalLMRouter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _load(self) -> tuple[Encoder, Generator]:
        if self._loaded is None:
            source, encoder = self._make_encoder()
            generator = make_generator(resolve_precision(self.config), source, encoder, self._workbench)
            generator.load_weights(self._folder.weights)
            self._loaded = encoder, generator
        return self._loaded

    def _make_encoder(self) -> tuple[str, Encoder]:
        config, best_single = resolve_precision(self.config), self._folder.read_metadata().best_single
        if not isinstance(config.target, OutcomeTargetConfig):
            return make_encoder(config, self._candidate_names(), best_single, self._workbench)
        # Queries come once each, so the model that embeds them stays and no vector is kept.
        self._embed = self._embed or Embedder(config.target.embedding, EMBEDDING, keeps=False)
        neighbours = read_scored_queries(self._folder.neighbours)
        for one in self._added:
            neighbours = neighbours.with_candidate(one.queries, self._embed(one.queries), one.scores)
        return make_encoder(config, self._candidate_names(), best_single, self._workbench, neighbours, self._embed)


@dataclass(frozen=True)
class _AddedCandidate:
    name: str
    queries: tuple[str, ...]
    scores: tuple[float, ...]
    mean_cost: float | None


def _answer(route: Route) -> dict[str, Any]:
    failure = route.parsed.failure
    answer = {"model_name": route.called, "parse_failure": failure and failure.value, "generation": route.generation}
    return answer if route.predicted is None else {**answer, "predicted": dict(route.predicted)}


class CausalLMRouterTrainer:
    """Trains a router that was made from a YAML file; the run folder is its `model_path.save_model_path`.

    `device`, which LLMRouter's scripts give, is "cpu" or "cuda"; None takes a GPU where there is one.

    Raises:
        ValueError: the device is another one, or "cuda" on a machine without a GPU.
    """

    def __init__(self, router: CausalLMRouter, device: str | None = None) -> None:
        known = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        if device is not None and device not in known:
            raise ValueError(f"device must be {' or '.join(known)} on this machine, got {device!r}")
        self.router, self.device = router, device

    def train(self) -> None:
        """Train, evaluate on the test files and leave a run folder; an interrupted one is continued.

        Raises:
            ValueError: the folder holds a finished run, or the data cannot be used.
        """
        from causal_lm_router.runs.train_run import train_router

        self.router.close()
        config = self.router.config
        if self.device == "cpu":
            # The formats of a GPU are slow here, or lose precision for nothing.
            trainer = replace(config.trainer, accelerator="cpu", precision="32-true")
            config = replace(config, trainer=trainer, base_model=replace(config.base_model, dtype="float32"))
        train_router(config)


CausalLMTrainer = CausalLMRouterTrainer
"""The name that LLMRouter's scripts import."""
