"""Routers to compare with: rules that know only train, learners on query embeddings, an encoder, and oracles."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from causal_lm_router.baselines.rules import (
    draw_rows,
    fit_per_task,
    mark_cheapest_best,
    mark_price_extremes,
    mark_size_extremes,
    repeat_row,
)
from causal_lm_router.baselines.score_table import Predictor, cost_table, label_table, score_table
from causal_lm_router.config import (
    BaselineConfig,
    BaselineMethod,
    EloConfig,
    EncoderConfig,
    MatrixFactorisationConfig,
    MlpConfig,
    NeighboursConfig,
    OwnBaselineConfig,
    SvmConfig,
)
from causal_lm_router.config.own_code import load_function
from causal_lm_router.data.arrays import Floats
from causal_lm_router.routing import Candidate, RoutingExample

_DIGITS = 12
"""Decimals kept of a prediction: candidates that differ only by rounding are tied."""

VectorPredictor = Callable[[Floats], Floats]
"""Function from query embeddings (queries x dimensions) to predictions (queries x candidates)."""


class FitBaseline(Protocol):
    """A baseline of the user's own, for `baseline=own`."""

    def __call__(
        self,
        train: Sequence[RoutingExample],
        pool: Sequence[Candidate],
        labels: Mapping[str, str],
        seed: int,
        embed: Callable[[Sequence[str]], NDArray[np.floating]],
        options: Mapping[str, Any],
    ) -> Predictor:
        """Return a function from examples to predictions: an array with a row per example, a column per candidate.

        Args:
            train: the training queries with the scores of all candidates.
            pool: the candidates; its order is that of the columns.
            labels: query id -> label of every training query.
            seed: the run's seed.
            embed: turns texts into vectors, a row each (`baseline.embedding`).
            options: `baseline.options`.
        """


def fit_baseline(
    settings: BaselineConfig,
    train: Sequence[RoutingExample],
    pool: Sequence[Candidate],
    labels: Mapping[str, str],
    seed: int,
    embed: Callable[[Sequence[str]], NDArray[np.floating]],
) -> Predictor:
    """Return a function from examples to predictions: a row per query, a column per candidate in pool order, 0..1.

    Higher is better; the route is a row's highest prediction, and ties go to the candidate that is earlier in
    `rank_on_train`. Predictions are expected scores (`best_single`, `per_task_best`, `knn_regression`, `mlp`,
    `encoder_classifier`), shares of labels (`majority_label`, `knn_vote`), probabilities to beat another candidate
    (`elo`, `matrix_factorisation`), the logistic function of a margin (`svm`), true scores (`oracle`), or 1 for the
    chosen candidates. The oracles read scores and costs of the examples to route; `per_task_best` reads their task,
    which must be known when routing; all others read only the query's text. Equal arguments give equal predictions, and
    the process's random generators stay as they were.

    `labels` maps the ids of the training queries to candidates. `embed` turns texts into vectors, a row each; it may
    cut long texts, as `Embedder` does.

    Raises:
        ValueError: the method is `zero_shot` or `few_shot`, which prompt a base model; there are no training queries,
            or fewer than neighbours; a label is missing; the method needs costs or sizes and they are unknown.
    """
    check_fit(settings, train, (), pool)
    predict = _fit(settings, train, pool, labels, seed, embed)

    def predict_rounded(examples: Sequence[RoutingExample]) -> Floats:
        return np.round(predict(examples), _DIGITS) if examples else np.empty((0, len(pool)))

    return predict_rounded


def check_fit(
    settings: BaselineConfig,
    train: Sequence[RoutingExample],
    asked: Sequence[RoutingExample],
    pool: Sequence[Candidate],
) -> None:
    """Check that the baseline can be fitted on `train` and asked the queries `asked`, without fitting it.

    Raises:
        ValueError: there are no training queries or fewer than neighbours, or costs or sizes are needed and unknown.
    """
    if not train:
        raise ValueError("train must have at least 1 query to fit a baseline, got none")
    if isinstance(settings, NeighboursConfig) and settings.k > len(train):
        raise ValueError(f"baseline.k must be in 1..{len(train)}, the number of training queries, got {settings.k}")
    if settings.method in (BaselineMethod.cheapest, BaselineMethod.most_expensive):
        cost_table(train, pool, settings.method.value)
    if settings.method in (BaselineMethod.smallest, BaselineMethod.largest):
        mark_size_extremes(pool, settings.method)
    if settings.method is BaselineMethod.cheapest_oracle and asked:
        cost_table(asked, pool, settings.method.value)


def _fit(
    settings: BaselineConfig,
    train: Sequence[RoutingExample],
    pool: Sequence[Candidate],
    labels: Mapping[str, str],
    seed: int,
    embed: Callable[[Sequence[str]], NDArray[np.floating]],
) -> Predictor:
    if (rule := _make_rule(settings, train, pool, labels, seed)) is not None:
        return rule
    match settings.method:
        case BaselineMethod.encoder_classifier:
            from causal_lm_router.baselines.encoder_classifier import fit_encoder

            assert isinstance(settings, EncoderConfig)
            predict = fit_encoder([example.query for example in train], score_table(train, pool), settings, seed)
            return lambda examples: predict([example.query for example in examples])
        case BaselineMethod.own:
            assert isinstance(settings, OwnBaselineConfig)
            fit: FitBaseline = load_function("baseline.function", settings.function, FitBaseline)
            return _check_predictions(fit(train, pool, labels, seed, embed, settings.options), len(pool))
        case BaselineMethod.zero_shot | BaselineMethod.few_shot:
            raise ValueError(
                f"baseline.method must be one that is fitted, got {settings.method.value!r}, which prompts a base model"
            )
        case _:
            return _fit_on_vectors(settings, train, pool, labels, seed, embed)


def _make_rule(
    settings: BaselineConfig,
    train: Sequence[RoutingExample],
    pool: Sequence[Candidate],
    labels: Mapping[str, str],
    seed: int,
) -> Predictor | None:
    """Return the predictor of a method that never reads a query's text; None for the others."""
    match settings.method:
        case BaselineMethod.random:
            return draw_rows(pool, seed)
        case BaselineMethod.cheapest | BaselineMethod.most_expensive:
            return repeat_row(mark_price_extremes(train, pool, settings.method))
        case BaselineMethod.smallest | BaselineMethod.largest:
            return repeat_row(mark_size_extremes(pool, settings.method))
        case BaselineMethod.best_single:
            return repeat_row(score_table(train, pool).mean(axis=0))
        case BaselineMethod.per_task_best:
            return fit_per_task(train, pool)
        case BaselineMethod.majority_label:
            return repeat_row(label_table(train, pool, labels).mean(axis=0))
        case BaselineMethod.oracle:
            return lambda examples: score_table(examples, pool)
        case BaselineMethod.cheapest_oracle:
            return lambda examples: mark_cheapest_best(examples, pool)
        # Elo without a preference for similar queries is the same for every query: it needs no embeddings.
        case BaselineMethod.elo if isinstance(settings, EloConfig) and settings.elo_gamma == 1:
            from causal_lm_router.baselines.elo import mean_elo_chances

            return repeat_row(mean_elo_chances(score_table(train, pool)))
    return None


def _check_predictions(predict: Predictor, num_candidates: int) -> Predictor:
    """Return the user's predictor with a check of its predictions."""
    if not callable(predict):
        raise ValueError(f"baseline.function must return a function, got a {type(predict).__name__}")

    def predict_checked(examples: Sequence[RoutingExample]) -> Floats:
        predicted = np.asarray(predict(examples), dtype=np.float64)
        if predicted.shape != (len(examples), num_candidates) or not np.isfinite(predicted).all():
            what = f"{len(examples)} x {num_candidates} finite numbers (examples x candidates)"
            raise ValueError(f"baseline.function must predict {what}, got an array of shape {predicted.shape}")
        return predicted

    return predict_checked


def _fit_on_vectors(
    settings: BaselineConfig,
    train: Sequence[RoutingExample],
    pool: Sequence[Candidate],
    labels: Mapping[str, str],
    seed: int,
    embed: Callable[[Sequence[str]], NDArray[np.floating]],
) -> Predictor:
    # Imported here, since scikit-learn and torch take seconds and the rules need neither.
    from causal_lm_router.baselines import elo, embedding_learners, matrix_factorisation

    def embed_queries(examples: Sequence[RoutingExample]) -> Floats:
        return np.asarray(embed([example.query for example in examples]), dtype=np.float64)

    # Labels are checked before the texts are embedded, which can take minutes.
    labelled = settings.method in (BaselineMethod.knn_vote, BaselineMethod.svm)
    targets = label_table(train, pool, labels) if labelled else score_table(train, pool)
    vectors = embed_queries(train)
    predict: VectorPredictor
    match settings:
        case NeighboursConfig():
            predict = embedding_learners.fit_neighbours(vectors, targets, settings.k)
        case SvmConfig():
            predict = embedding_learners.fit_svm(vectors, targets, settings.svm_c)
        case MlpConfig():
            layers, epochs = settings.mlp_hidden_units, settings.mlp_epochs
            predict = embedding_learners.fit_mlp(vectors, targets, layers, epochs, settings.mlp_batch_size, seed)
        case MatrixFactorisationConfig():
            predict = matrix_factorisation.fit_factors(
                vectors, targets, settings.mf_rank, settings.mf_epochs, settings.mf_noise, seed
            )
        case EloConfig():
            predict = elo.fit_similar(vectors, targets, settings.elo_gamma)
        case _:
            raise TypeError(f"no baseline takes a {type(settings).__name__}")
    return lambda examples: predict(embed_queries(examples))
