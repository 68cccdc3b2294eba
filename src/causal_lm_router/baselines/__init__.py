"""Routers to compare with: rules that know only train, learners on query embeddings, an encoder, and oracles."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from causal_lm_router.baselines.rules import (
    best_scores,
    cheapest_best,
    constant_rows,
    draw_rows,
    fit_per_task,
    price_row,
)
from causal_lm_router.baselines.score_table import Predictor, label_table, score_table
from causal_lm_router.config import BaselineConfig, BaselineMethod
from causal_lm_router.data.arrays import Floats
from causal_lm_router.routing import Candidate, RoutingExample

_DIGITS = 12
"""Decimals kept of a prediction: candidates that differ by rounding alone are tied."""

VectorPredictor = Callable[[Floats], Floats]
"""Function from query embeddings (queries x dimensions) to predictions (queries x candidates)."""


def fit_baseline(
    settings: BaselineConfig,
    train: Sequence[RoutingExample],
    pool: Sequence[Candidate],
    labels: Mapping[str, str],
    seed: int,
    embed: Callable[[Sequence[str]], NDArray[np.floating]],
) -> Predictor:
    """Return a function from examples to predictions: a row per query, a column per candidate in pool order, 0..1.

    The higher, the better; the route is a row's highest, ties to the candidate that is earlier in `rank_on_train`.
    Predictions are expected scores (`best_single`, `per_task_best`, `knn_regression`, `mlp`, `encoder_classifier`),
    shares of labels (`majority_label`, `knn_vote`), chances to beat another candidate (`elo`,
    `matrix_factorisation`), the logistic function of a margin (`svm`), true scores (`oracle`), or 1 for what is chosen.
    The oracles read scores and costs of the examples to route; `per_task_best` reads their task, which has to be known
    when routing; all others read the query's text alone. Calls give the same for the same arguments, and leave the
    process's random generators as they were.

    `labels` maps the ids of the training queries to candidates. `embed` turns texts into vectors, a row each; what it
    does with texts beyond its window is its own (`Embedder` cuts them).

    Raises ValueError for `zero_shot` and `few_shot` (they prompt a base model, nothing is fitted), no training queries,
    more neighbours than training queries, a missing label, and unknown costs under a method that goes by them.
    """
    if not train:
        raise ValueError("train: got no queries, a baseline needs at least 1")
    predict = _fit(settings, train, pool, labels, seed, embed)

    def predict_rounded(examples: Sequence[RoutingExample]) -> Floats:
        return np.round(predict(examples), _DIGITS) if examples else np.empty((0, len(pool)))

    return predict_rounded


def _fit(
    settings: BaselineConfig,
    train: Sequence[RoutingExample],
    pool: Sequence[Candidate],
    labels: Mapping[str, str],
    seed: int,
    embed: Callable[[Sequence[str]], NDArray[np.floating]],
) -> Predictor:
    match settings.method:
        case BaselineMethod.random:
            return draw_rows(pool, seed)
        case BaselineMethod.cheapest | BaselineMethod.most_expensive:
            return constant_rows(price_row(train, pool, settings.method))
        case BaselineMethod.best_single:
            return constant_rows(score_table(train, pool).mean(axis=0))
        case BaselineMethod.per_task_best:
            return fit_per_task(train, pool)
        case BaselineMethod.majority_label:
            return constant_rows(label_table(train, pool, labels).mean(axis=0))
        case BaselineMethod.oracle:
            return lambda examples: best_scores(examples, pool)
        case BaselineMethod.cheapest_oracle:
            return lambda examples: cheapest_best(examples, pool)
        case BaselineMethod.encoder_classifier:
            from causal_lm_router.baselines.encoder_classifier import fit_encoder

            read = fit_encoder([example.query for example in train], score_table(train, pool), settings, seed)
            return lambda examples: read([example.query for example in examples])
        case BaselineMethod.zero_shot | BaselineMethod.few_shot:
            raise ValueError(f"baseline.method={settings.method.value!r}: prompts a base model, nothing is fitted")
        case _:
            return _fit_on_vectors(settings, train, pool, labels, seed, embed)


def _fit_on_vectors(
    settings: BaselineConfig,
    train: Sequence[RoutingExample],
    pool: Sequence[Candidate],
    labels: Mapping[str, str],
    seed: int,
    embed: Callable[[Sequence[str]], NDArray[np.floating]],
) -> Predictor:
    from causal_lm_router.baselines import (
        elo,
        matrix_factorisation,
    )
    from causal_lm_router.baselines import (
        embedding_learners as mlp,
    )
    from causal_lm_router.baselines import (
        embedding_learners as neighbours,
    )
    from causal_lm_router.baselines import (
        embedding_learners as svm,
    )

    def vectors(examples: Sequence[RoutingExample]) -> Floats:
        return np.asarray(embed([example.query for example in examples]), dtype=np.float64)

    scores = score_table(train, pool)
    predict: VectorPredictor
    match settings.method:
        case BaselineMethod.knn_vote:
            predict = neighbours.fit_neighbours(vectors(train), label_table(train, pool, labels), settings.k)
        case BaselineMethod.knn_regression:
            predict = neighbours.fit_neighbours(vectors(train), scores, settings.k)
        case BaselineMethod.svm:
            predict = svm.fit_svm(vectors(train), label_table(train, pool, labels), settings.svm_c)
        case BaselineMethod.mlp:
            predict = mlp.fit_mlp(vectors(train), scores, settings.mlp_hidden_units, settings.mlp_epochs, seed)
        case BaselineMethod.matrix_factorisation:
            predict = matrix_factorisation.fit_factors(
                vectors(train), scores, settings.mf_rank, settings.mf_epochs, seed
            )
        case BaselineMethod.elo if settings.elo_gamma == 1:
            return constant_rows(elo.win_chances(scores))
        case _:
            assert settings.method is BaselineMethod.elo
            predict = elo.fit_similar(vectors(train), scores, settings.elo_gamma)
    return lambda examples: predict(vectors(examples))
