"""CausalLMRouter: routes queries from Python, with a run folder or with a configuration file of LLMRouter's."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from causal_lm_router.config import TrainConfig
from causal_lm_router.config.compose import compose_on_run
from causal_lm_router.config.permissions import take_from_folder
from causal_lm_router.config.resolve import resolve_config
from causal_lm_router.config.run_config import load_run_config
from causal_lm_router.generation.decoder import Decoder, Decoding
from causal_lm_router.generation.generator import Generator
from causal_lm_router.generation.joined_calls import JoinedCalls
from causal_lm_router.models.precision import resolve_precision
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.prompting.parse import called_candidate
from causal_lm_router.routing import ParsedRoute, check_query
from causal_lm_router.runs.llmrouter_yaml import LLMRouterFiles, read_llmrouter_yaml
from causal_lm_router.runs.run_folder import RunFolder
from causal_lm_router.runs.session import make_encoder, make_generator
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

    def _decode(self, queries: Sequence[str]) -> list[Decoding]:
        config = self.config
        with self._lock:
            encoder, generator = self._load()
            mean_costs = self._folder.read_metadata().mean_costs if config.decoding.cost_weight else None
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
            config, metadata = resolve_precision(self.config), self._folder.read_metadata()
            source, encoder = make_encoder(config, metadata.candidate_names, metadata.best_single, self._workbench)
            generator = make_generator(config, source, encoder, self._workbench)
            generator.load_weights(self._folder.weights)
            self._loaded = encoder, generator
        return self._loaded


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
