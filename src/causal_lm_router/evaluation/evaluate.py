"""Evaluating a router: one function for the callback, the end of a run and the `evaluate` command."""

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from causal_lm_router.config import DecodingMethod
from causal_lm_router.data.train_means import TrainMeans
from causal_lm_router.evaluation.intervals import mean_estimate, rate_estimate
from causal_lm_router.evaluation.metrics import Evaluation, evaluate_outcomes
from causal_lm_router.evaluation.report import DecodingReport
from causal_lm_router.generation.decoder import Decoder, Decoding
from causal_lm_router.prompting.encoder import EncodedPrompt, Encoder
from causal_lm_router.prompting.parse import called_candidate
from causal_lm_router.routing import ParseFailure, RouteOutcome, RoutingExample
from causal_lm_router.terminal import name_work


def evaluate_router(
    decoder: Decoder,
    encoder: Encoder,
    examples: Sequence[RoutingExample],
    labels: Mapping[str, str],
    best_single: str,
    means: TrainMeans,
    fallback: str | None,
    methods: Sequence[DecodingMethod],
    *,
    with_predictions: bool = False,
    validation: Evaluation | None = None,
) -> Evaluation:
    """Route every example with the decoder's weights by each method; the first makes the report, `free` is always used.

    Outcomes stand in the examples' order. Throughput counts the first method alone. `means`, `with_predictions` and
    `validation`, which must hold the same methods, are those of `evaluate_outcomes`.

    Raises:
        ValueError: there are no examples.
    """
    if not examples:
        raise ValueError("evaluation: the split holds no queries")
    prompts = encoder.encode_prompts([example.query for example in examples])
    # Free generation shows what a constraint hides.
    decoded, speeds = _decode(decoder, dict.fromkeys([*methods, DecodingMethod.free]), prompts)
    outcomes = {
        method: _outcomes(examples, labels, decodings, prompts, fallback) for method, decodings in decoded.items()
    }
    reports = _decoding_reports(outcomes, decoded)
    first, *rest = decoded
    # Each method's predictions are calibrated by its own on validation.
    calibrating = {first.value: validation, **validation.others} if validation else {}
    evaluations = {
        method: evaluate_outcomes(
            outcomes[method],
            encoder.targets.candidate_names,
            best_single,
            speeds[method],
            means=means,
            decoding=reports[method],
            with_predictions=with_predictions,
            validation=calibrating.get(method.value),
        )
        for method in decoded
    }
    return replace(evaluations[first], others={method.value: evaluations[method] for method in rest})


def _decode(
    decoder: Decoder, methods: Iterable[DecodingMethod], prompts: Sequence[EncodedPrompt]
) -> tuple[dict[DecodingMethod, list[Decoding]], dict[DecodingMethod, float]]:
    """What every method reads out for every prompt, and its queries per second."""
    decoded, speeds = {}, {}
    for method in methods:
        start = time.perf_counter()
        with name_work(method.value):
            decoded[method] = decoder.decode(method, prompts)
        speeds[method] = len(prompts) / (time.perf_counter() - start)
    return decoded, speeds


def _outcomes(
    examples: Sequence[RoutingExample],
    labels: Mapping[str, str],
    decodings: Sequence[Decoding],
    prompts: Sequence[EncodedPrompt],
    fallback: str | None,
) -> list[RouteOutcome]:
    return [
        RouteOutcome(
            example=example,
            label=labels[example.query_id],
            generation=decoding.generation,
            route=decoding.route,
            called=called_candidate(decoding.route, fallback),
            truncated_query=prompt.was_cut,
            predicted=decoding.predicted,
        )
        for example, decoding, prompt in zip(examples, decodings, prompts, strict=True)
    ]


def _decoding_reports(
    outcomes: Mapping[DecodingMethod, Sequence[RouteOutcome]],
    decoded: Mapping[DecodingMethod, Sequence[Decoding]],
) -> dict[DecodingMethod, DecodingReport]:
    """One per method; all but `method` is the same in each."""
    free = [outcome.route for outcome in outcomes[DecodingMethod.free]]
    # Only a method that looks at every target knows their total probability.
    masses = [decoding.valid_mass for row in decoded.values() for decoding in row if decoding.valid_mass is not None]
    differing = {}
    # Two parse failures are no difference, even with different texts.
    for one, other in itertools.combinations(outcomes, 2):
        pairs = zip(outcomes[one], outcomes[other], strict=True)
        num_different = sum(first.route.candidate != second.route.candidate for first, second in pairs)
        differing[f"{one.value}~{other.value}"] = rate_estimate(num_different, len(free))
    scores = {method.value: mean_estimate([outcome.score for outcome in rows]) for method, rows in outcomes.items()}
    return {
        method: DecodingReport(
            method=method.value,
            free_parse_failure_rate=rate_estimate(sum(route.failure is not None for route in free), len(free)),
            off_list_rate=rate_estimate(sum(route.failure is ParseFailure.unknown for route in free), len(free)),
            valid_mass=mean_estimate(masses) if masses else None,
            mean_scores=scores,
            differing_routes=differing,
        )
        for method in outcomes
    }
