"""Evaluating a router: one function for the callback, the end of a run and the `evaluate` command."""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from causal_lm_router.config import DecodingMethod
from causal_lm_router.evaluation.intervals import mean_estimate, rate_estimate
from causal_lm_router.evaluation.measures.prediction_report import report_predictions
from causal_lm_router.evaluation.measures.predictions import Predictions
from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.evaluation.report import DecodingReport, RoutingReport
from causal_lm_router.generation.decoder import Decoder, Decoding
from causal_lm_router.prompting.encoder import EncodedPrompt, Encoder
from causal_lm_router.prompting.parse import called_candidate
from causal_lm_router.routing import ParseFailure, RouteOutcome, RoutingExample


@dataclass(frozen=True)
class Evaluation:
    """A report with the outcomes it was made from, and the same by other decoding methods on the same weights."""

    report: RoutingReport
    outcomes: list[RouteOutcome]
    others: Mapping[str, "Evaluation"] = field(default_factory=dict)


def evaluate_router(
    decoder: Decoder,
    encoder: Encoder,
    examples: Sequence[RoutingExample],
    labels: Mapping[str, str],
    best_single: str,
    fallback: str | None,
    methods: Sequence[DecodingMethod],
) -> Evaluation:
    """Route every example with the decoder's weights by each method; the first makes the report, `free` is always used.

    Outcomes stand in the examples' order. Throughput counts the first method alone. Raises ValueError for no examples.
    """
    if not examples:
        raise ValueError("evaluation: the split holds no queries")
    prompts = encoder.encode_prompts([example.query for example in examples])
    decoded: dict[DecodingMethod, list[Decoding]] = {}
    speeds: dict[DecodingMethod, float] = {}
    for method in dict.fromkeys([*methods, DecodingMethod.free]):
        start = time.perf_counter()
        decoded[method] = decoder.decode(method, prompts)
        speeds[method] = len(examples) / (time.perf_counter() - start)
    evaluations = {}
    for method, decodings in decoded.items():
        outcomes = [
            _outcome(example, labels[example.query_id], decoding, prompt, fallback)
            for example, decoding, prompt in zip(examples, decodings, prompts, strict=True)
        ]
        report = evaluate_outcomes(outcomes, encoder.targets.candidate_names, best_single, speeds[method])
        evaluations[method] = Evaluation(report, outcomes)
    for method, evaluation in evaluations.items():
        report = replace(evaluation.report, decoding=_decoding_report(method, evaluations, decoded))
        evaluations[method] = replace(evaluation, report=report)
    first, *others = evaluations
    return replace(evaluations[first], others={method.value: evaluations[method] for method in others})


def with_predictions(evaluation: Evaluation, validation: Evaluation | None) -> Evaluation:
    """Return the evaluation with what its predictions are worth in its report, where the router predicts at all.

    `validation` is the same router's evaluation on the validation split: temperature and conformal threshold come from
    there. The other methods' evaluations get theirs too.
    """
    test = _predictions(evaluation)
    others = {
        name: with_predictions(other, validation.others.get(name) if validation else None)
        for name, other in evaluation.others.items()
    }
    if test is None:
        return replace(evaluation, others=others)
    found = report_predictions(test, _predictions(validation) if validation else None, evaluation.report.best_single)
    return replace(evaluation, report=replace(evaluation.report, predictions=found), others=others)


def _outcome(
    example: RoutingExample, label: str, decoding: Decoding, prompt: EncodedPrompt, fallback: str | None
) -> RouteOutcome:
    called = called_candidate(decoding.route, fallback)
    return RouteOutcome(
        example,
        label,
        decoding.generation,
        decoding.route,
        called,
        prompt.was_cut,
        predicted=decoding.predicted,
    )


def _decoding_report(
    method: DecodingMethod,
    evaluations: Mapping[DecodingMethod, Evaluation],
    decoded: Mapping[DecodingMethod, Sequence[Decoding]],
) -> DecodingReport:
    free = [decoding.route for decoding in decoded[DecodingMethod.free]]
    masses = [decoding.valid_mass for row in decoded.values() for decoding in row if decoding.valid_mass is not None]
    differing = {}
    for one, other in itertools.combinations(decoded, 2):
        pairs = zip(decoded[one], decoded[other], strict=True)
        num_different = sum(first.route.candidate != second.route.candidate for first, second in pairs)
        differing[f"{one.value}~{other.value}"] = rate_estimate(num_different, len(free))
    return DecodingReport(
        method=method.value,
        free_parse_failure_rate=rate_estimate(sum(route.failure is not None for route in free), len(free)),
        off_list_rate=rate_estimate(sum(route.failure is ParseFailure.unknown for route in free), len(free)),
        valid_mass=mean_estimate(masses) if masses else None,
        mean_scores={name.value: evaluation.report.mean_score for name, evaluation in evaluations.items()},
        differing_routes=differing,
    )


def _predictions(evaluation: Evaluation) -> Predictions | None:
    outcomes, names = evaluation.outcomes, evaluation.report.candidate_names
    if any(outcome.predicted is None for outcome in outcomes):
        return None
    costs = [outcome.example.costs for outcome in outcomes]
    known = [row for row in costs if row is not None]
    return Predictions(
        candidate_names=names,
        scores=np.array([[outcome.example.scores[name] for name in names] for outcome in outcomes]),
        costs=np.array([[row[name] for name in names] for row in known]) if len(known) == len(costs) else None,
        predicted=np.array([[(outcome.predicted or {})[name] for name in names] for outcome in outcomes]),
        called=np.array([[float(outcome.called == name) for name in names] for outcome in outcomes]),
    )
