"""What a job holds while it runs: data, encoder, and a generator that is used by every evaluation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from causal_lm_router.config import (
    BaseModelConfig,
    DataConfig,
    DecodingMethod,
    EvaluationConfig,
    OutcomeTargetConfig,
    ParsingConfig,
    TrainConfig,
)
from causal_lm_router.data.neighbours import ScoredQueries, read_scored_queries, score_queries
from causal_lm_router.data.prepared import PreparedData, prepare_data
from causal_lm_router.data.transforms import shuffle_scores
from causal_lm_router.evaluation.evaluate import evaluate_router
from causal_lm_router.evaluation.evaluation_folder import outcome_rows
from causal_lm_router.evaluation.latency import Latency, measure_latency
from causal_lm_router.evaluation.metrics import Evaluation
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.generation.decoder import Decoder
from causal_lm_router.generation.generator import Generator, open_generator
from causal_lm_router.generation.joined_calls import JoinedCalls
from causal_lm_router.models.base_model import base_model_source, load_tokenizer
from causal_lm_router.models.embeddings import Embedder
from causal_lm_router.models.precision import resolve_precision
from causal_lm_router.models.torch_state import keep_random_state, keep_torch_settings
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.prompting.pair_encoder import Embed, PairEncoder, check_num_neighbours
from causal_lm_router.prompting.targets import Targets
from causal_lm_router.routing import RoutingExample, describe_other_pool
from causal_lm_router.runs.run_folder import RouterMetadata, RunFolder
from causal_lm_router.runs.tracking import Tracking
from causal_lm_router.runs.workbench import Workbench

EMBEDDING = "target.embedding"
"""The key that names the model which embeds queries."""
OnEvaluation = Callable[[RoutingReport, int], None]
"""Sees the report and the step of every evaluation during training; it may end the run with PrunedError."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """One job's config, run folder, data and encoder; the workbench holds what it shares with other jobs."""

    config: TrainConfig
    """With a number format in place of every `auto`."""
    configured: TrainConfig
    """The same as it was given, which another machine reads as it fits it."""
    folder: RunFolder
    data: PreparedData
    source: str
    """Hub name or folder of the base model, with new tokens in its vocabulary where the targets are such."""
    encoder: Encoder
    workbench: Workbench
    on_evaluation: OnEvaluation | None = None

    @cached_property
    def generator(self) -> Generator:
        """The configured backend, made at the first use; all vLLM generators of a workbench share its engine."""
        return make_generator(self.config, self.source, self.encoder, self.workbench)

    def evaluate(
        self,
        weights_dir: Path | None,
        examples: Sequence[RoutingExample],
        also: Sequence[DecodingMethod] = (),
        *,
        with_predictions: bool = False,
        validation: Evaluation | None = None,
    ) -> Evaluation:
        """Return the evaluation of the weights in a folder (None: the bare base model); then the generator sleeps.

        `also` names further decoding methods to evaluate beside the configured one. `with_predictions` and `validation`
        are those of `evaluate_outcomes`.
        """
        decoder, config, data = self._load(weights_dir), self.config, self.data
        methods = (config.decoding.method, *also)
        fallback = config.parsing.fallback_candidate
        result = evaluate_router(
            decoder,
            self.encoder,
            examples,
            data.labels,
            data.best_single,
            data.train_means,
            fallback,
            methods,
            with_predictions=with_predictions,
            validation=validation,
        )
        # Training may go on now, and needs the memory of the device.
        self.generator.sleep()
        return result

    def measure_latency(self, weights_dir: Path | None, queries: Sequence[str], num_calls: int) -> tuple[Latency, ...]:
        """Return how long calls take that route such queries with weights from a folder; then the generator sleeps."""
        decoder, method = self._load(weights_dir), self.config.decoding.method
        # As in a router that threads share, the engine answers one call at a time.
        joined = JoinedCalls(lambda texts: decoder.decode(method, self.encoder.encode_prompts(texts)))
        latency = measure_latency(joined, queries, num_calls)
        self.generator.sleep()
        return latency

    def _load(self, weights_dir: Path | None) -> Decoder:
        # The generator outlives its weights: an evaluation while training changes nothing but them.
        self.generator.load_weights(weights_dir)
        config, costs = self.config, self.data.mean_costs
        return Decoder(self.generator, self.encoder, config.decoding, config.objective, config.parsing, costs)

    def close(self) -> None:
        """Release the generator and the memory that the job leaves."""
        # A generator that nothing asked for is not made to be closed.
        if "generator" in vars(self):
            self.generator.close()
        self.workbench.release()


def load_data(config: DataConfig, workbench: Workbench) -> PreparedData:
    """Return the configured data; files are read once a workbench, however they change meanwhile.

    Raises:
        ValueError: data that cannot be used; see `prepare_data`.
    """
    # Some sources draw from the process's generators, which a job leaves as it found them.
    with keep_random_state(include_cuda=False):
        return workbench.data.get(repr(config), lambda: prepare_data(config))


@contextmanager
def open_session(
    config: TrainConfig,
    folder: RunFolder,
    data: PreparedData,
    workbench: Workbench,
    on_evaluation: OnEvaluation | None = None,
) -> Iterator[Session]:
    """Yield the session of a config over its data (see `load_data`), closed at the end.

    The process's random state and torch's settings are at the end as they were before, so that no job in it depends on
    an earlier one.

    Raises:
        ValueError: data, prompt, objective or parsing settings do not fit together.
    """
    with (
        keep_random_state(include_cuda=False),  # each training step seeds the GPUs' own
        keep_torch_settings(),
    ):
        if config.trainer.num_threads is not None:
            torch.set_num_threads(config.trainer.num_threads)
        # After the threads are set: how fast a number format is depends on them.
        configured, config = config, resolve_precision(config)
        # The generator is made at its first use: a baseline or a data check may never need one.
        neighbours = load_neighbours(config, folder, data)
        source, encoder = make_encoder(config, data.candidate_names, data.best_single, workbench, neighbours)
        session = Session(
            config=config,
            configured=configured,
            folder=folder,
            data=data,
            source=source,
            encoder=encoder,
            workbench=workbench,
            on_evaluation=on_evaluation,
        )
        try:
            yield session
        finally:
            session.close()


def load_neighbours(config: TrainConfig, folder: RunFolder, data: PreparedData) -> ScoredQueries | None:
    """Return the scored queries that the records of candidates are taken from: those of the run, else of its data.

    None where the target needs none.

    Raises:
        ValueError: there are too few training queries, the model that embeds them cannot be loaded, or the file of the
            run is damaged.
    """
    if not isinstance(config.target, OutcomeTargetConfig):
        return None
    if folder.neighbours.is_file():
        return read_scored_queries(folder.neighbours)
    # All of the split, and not shrunk: outcomes are shown as they were.
    train = data.splits.train
    if config.data.shuffle_train_scores:
        train = shuffle_scores(train, config.data.split_seed)
    check_num_neighbours(config.target, len(train))  # before the embedding, which can take minutes
    vectors = Embedder(config.target.embedding, EMBEDDING)([example.query for example in train])
    return score_queries(train, data.candidate_names, vectors)


def make_encoder(
    config: TrainConfig,
    candidate_names: Sequence[str],
    best_single: str,
    workbench: Workbench,
    neighbours: ScoredQueries | None = None,
    embed: Embed | None = None,
) -> tuple[str, Encoder]:
    """Return where the base model of a config lies (hub name or folder), and the encoder of a pool for it.

    `neighbours` are those of `load_neighbours`; `embed` makes their vectors, by default with a cache.

    Raises:
        ValueError: the settings do not fit the pool or one another, or the base model's tokenizer cannot be had.
    """
    check_fallback(config.parsing, candidate_names)
    targets = run_targets(config, candidate_names, best_single)
    source, tokenizer = load_vocabulary(config.base_model, targets.new_tokens, workbench)
    if neighbours is None:
        return source, Encoder(tokenizer, config.prompt, targets)
    assert isinstance(config.target, OutcomeTargetConfig), "no other target has neighbours"
    embed = embed or Embedder(config.target.embedding, EMBEDDING)
    return source, PairEncoder(tokenizer, config.prompt, targets, config.target, neighbours, embed)


def check_fallback(config: ParsingConfig, candidate_names: Sequence[str]) -> None:
    """Check that the fallback is a candidate, where there is one.

    Raises:
        ValueError: it is none.
    """
    fallback = config.fallback_candidate
    if fallback is not None and fallback not in candidate_names:
        allowed = ", ".join(candidate_names)
        raise ValueError(f"parsing.fallback_candidate must be null or one of {allowed}, got {fallback!r}")


def load_vocabulary(
    config: BaseModelConfig, new_tokens: Mapping[str, str], workbench: Workbench
) -> tuple[str, PreTrainedTokenizerBase]:
    """Return where the base model lies (hub name or folder), and its tokenizer, with the new tokens in both.

    Raises:
        ValueError: they cannot be had; see `load_tokenizer`.
    """
    # With new tokens the base model is a checkpoint of its own.
    source = base_model_source(config, new_tokens)
    return source, workbench.tokenizer.get(repr((source, config)), lambda: load_tokenizer(source, config))


def make_generator(config: TrainConfig, source: str, encoder: Encoder, workbench: Workbench) -> Generator:
    """Return the configured backend over the base model at `source`; vLLM's engine is that of the workbench."""
    # A prompt never has more tokens, so vLLM needs room for no more.
    room, tokenizer = encoder.max_prompt_tokens, encoder.tokenizer
    return open_generator(config.inference, config.base_model, config.lora, source, tokenizer, room, workbench.engine)


def run_targets(config: TrainConfig, names: Sequence[str], best_single: str) -> Targets:
    """Return the targets that a config gives the candidates of a pool; the strong one of two is `best_single`."""
    return Targets(config.target.kind, tuple(names), config.prompt.target, best_single)


def check_pool_of_run(config: TrainConfig, metadata: RouterMetadata, data: PreparedData) -> None:
    """Check that the data's pool is that of the run, apart from candidates that the config renames.

    Raises:
        ValueError: it is another one.
    """
    # A renamed pool keeps its order: a name is replaced where it stands.
    known = [config.data.renamed_candidates.get(name, name) for name in metadata.candidate_names]
    if data.candidate_names != known:
        raise ValueError(f"data: its pool must be that of the run: {describe_other_pool(data.candidate_names, known)}")


def check_splits(config: EvaluationConfig, data: PreparedData) -> None:
    """Check that every split which training or its end evaluates holds queries.

    Raises:
        ValueError: one holds none.
    """
    # An empty split shows now, and not after hours of training.
    evaluated = {"final_split": config.final_split}
    if config.every_n_epochs is not None or config.every_n_steps is not None:
        evaluated["split"] = config.split
    for key, split in evaluated.items():
        if not data.examples(split):
            raise ValueError(
                f"evaluation.{key} must be a split that holds queries, got {split.value!r}; see "
                f"data.{split.value}_fraction"
            )


def record_evaluation(tracking: Tracking, evaluation: Evaluation, split: str, step: int) -> None:
    """Send an evaluation's metrics and outcomes to every tracker, under the name of its split."""
    tracking.log_report(evaluation.report.to_metrics(), split, step)
    tracking.log_outcomes(outcome_rows(evaluation.outcomes), split, step)
