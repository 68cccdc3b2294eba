"""What a job holds while it runs: data, tokens, and a generator that is used by every evaluation."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from causal_lm_router.config import DecodingMethod, EvaluationConfig, TrainConfig
from causal_lm_router.data.prepared import PreparedData
from causal_lm_router.evaluation.evaluate import evaluate_router
from causal_lm_router.evaluation.evaluation_folder import outcome_rows
from causal_lm_router.evaluation.metrics import Evaluation
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.generation.decoder import Decoder
from causal_lm_router.generation.generator import Generator
from causal_lm_router.models.precision import resolve_precision
from causal_lm_router.models.torch_state import keep_random_state, keep_torch_settings
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.prompting.targets import Targets
from causal_lm_router.routing import RoutingExample
from causal_lm_router.runs.run_folder import RouterMetadata, RunFolder
from causal_lm_router.runs.tracking import Tracking
from causal_lm_router.runs.workbench import Workbench

OnEvaluation = Callable[[RoutingReport, int], None]
"""Sees the report and the step of every evaluation during training; it may end the run with PrunedError."""


@dataclass(frozen=True)
class Session:
    """One job's config, run folder, data and generator; the workbench holds what it shares with other jobs."""

    config: TrainConfig
    folder: RunFolder
    data: PreparedData
    encoder: Encoder
    generator: Generator
    workbench: Workbench
    configured: TrainConfig
    """`config` as it was given: it may hold `auto` where `config` holds a number format."""
    on_evaluation: OnEvaluation | None = None

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
        self.generator.load_weights(weights_dir)
        config, data = self.config, self.data
        mean_costs = data.mean_costs
        decoder = Decoder(self.generator, self.encoder, config.decoding, config.objective, config.parsing, mean_costs)
        methods = (config.decoding.method, *also)
        fallback = config.parsing.fallback_candidate
        result = evaluate_router(
            decoder,
            self.encoder,
            examples,
            data.labels,
            data.best_single,
            fallback,
            methods,
            with_predictions=with_predictions,
            validation=validation,
        )
        self.generator.sleep()
        return result


@contextmanager
def open_session(
    config: TrainConfig,
    folder: RunFolder,
    workbench: Workbench | None = None,
    on_evaluation: OnEvaluation | None = None,
) -> Iterator[Session]:
    """Yield the session of a config; without a workbench it has one of its own, closed at the end.

    The process's random state and torch's settings are at the end as they were before, so that no job in it depends on
    an earlier one. Raises ValueError for data, prompt or parsing settings that do not fit together.
    """
    with (
        keep_random_state(include_cuda=False),  # each training step seeds the GPUs' own
        keep_torch_settings(),
        nullcontext(workbench) if workbench else Workbench(keeps_base_model=False) as workbench,
    ):
        if config.trainer.num_threads is not None:
            torch.set_num_threads(config.trainer.num_threads)
        # After the threads are set: how fast a number format is depends on them.
        configured, config = config, resolve_precision(config)
        data = workbench.data(config.data)
        check_fallback(config.parsing.fallback_candidate, data.candidate_names)
        targets = run_targets(config, data.candidate_names, data.best_single)
        encoder = Encoder(workbench.tokenizer(config.base_model, targets.new_tokens), config.prompt, targets)
        generator = workbench.generator(config, encoder.max_prompt_tokens, targets.new_tokens)
        try:
            yield Session(config, folder, data, encoder, generator, workbench, configured, on_evaluation)
        finally:
            generator.close()
            workbench.release()


def check_fallback(fallback_candidate: str | None, names: Sequence[str]) -> None:
    """Raise ValueError for a fallback that is not in the pool."""
    if fallback_candidate is not None and fallback_candidate not in names:
        raise ValueError(f"parsing.fallback_candidate={fallback_candidate!r}: allowed is null | {' | '.join(names)}")


def run_targets(config: TrainConfig, names: Sequence[str], best_single: str) -> Targets:
    """Return the targets that a config gives the candidates of a pool; the strong one of two is `best_single`."""
    return Targets(config.target.kind, tuple(names), config.prompt.target, best_single)


def check_pool_of_run(config: TrainConfig, metadata: RouterMetadata, data: PreparedData) -> None:
    """Raise ValueError where the data's pool is not the run's, but for candidates that the config renames."""
    known = [config.data.renamed_candidates.get(name, name) for name in metadata.candidate_names]
    if data.candidate_names != known:
        raise ValueError(f"data: its pool is {data.candidate_names}, the run's is {known}")


def check_splits(config: EvaluationConfig, data: PreparedData) -> None:
    """Raise ValueError where a split that training or its end evaluates holds no queries."""
    evaluated = {"final_split": config.final_split}
    if config.every_n_epochs is not None or config.every_n_steps is not None:
        evaluated["split"] = config.split
    for key, split in evaluated.items():
        if not data.examples(split):
            raise ValueError(
                f"evaluation.{key}={split.value!r}: this split holds no queries, see data.{split.value}_fraction"
            )


def record_evaluation(tracking: Tracking, evaluation: Evaluation, split: str, step: int) -> None:
    """Send an evaluation's figures and outcomes to every tracker, under the name of its split."""
    tracking.log_report(evaluation.report.to_metrics(), split, step)
    tracking.log_outcomes(outcome_rows(evaluation.outcomes), split, step)


def is_first_process() -> bool:
    """True unless this is one of the further processes that a distributed strategy started."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))
