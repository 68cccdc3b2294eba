"""Evaluating a router: one function for the callback, the end of a run and the `evaluate` command."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from causal_lm_router.config import ParsingConfig
from causal_lm_router.encoding import EncodedPrompt, Encoder
from causal_lm_router.generators import Generator
from causal_lm_router.metrics import evaluate_outcomes
from causal_lm_router.parse import called_candidate
from causal_lm_router.routing import Generation, RouteOutcome, RoutingExample
from causal_lm_router.routing_report import RoutingReport
from causal_lm_router.targets import Targets


@dataclass(frozen=True)
class Evaluation:
    """A report with the outcomes it was made from."""

    report: RoutingReport
    outcomes: list[RouteOutcome]


def evaluate_router(
    generator: Generator,
    encoder: Encoder,
    examples: Sequence[RoutingExample],
    labels: Mapping[str, str],
    best_single: str,
    parsing: ParsingConfig,
) -> Evaluation:
    """Route every example with the generator's current weights and return the report and outcomes, in order.

    Throughput counts generation only. Raises ValueError for no examples.
    """
    if not examples:
        raise ValueError("evaluation: the split holds no queries")
    names = encoder.format.names
    prompts = encoder.encode_prompts([example.query for example in examples])
    start = time.perf_counter()
    generations = generator.generate([prompt.input_ids for prompt in prompts])
    seconds = time.perf_counter() - start
    outcomes = [
        _outcome(example, labels[example.query_id], generation, prompt, encoder.targets, parsing)
        for example, generation, prompt in zip(examples, generations, prompts, strict=True)
    ]
    return Evaluation(evaluate_outcomes(outcomes, names, best_single, len(examples) / seconds), outcomes)


def _outcome(
    example: RoutingExample,
    label: str,
    generation: Generation,
    prompt: EncodedPrompt,
    targets: Targets,
    parsing: ParsingConfig,
) -> RouteOutcome:
    route = targets.parse(generation, parsing.mode, parsing.fuzzy_threshold)
    called = called_candidate(route, parsing.fallback_candidate)
    return RouteOutcome(example, label, generation, route, called, prompt.was_cut)
