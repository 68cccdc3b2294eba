"""The body of the `baseline` command: fit a baseline on the training queries, evaluate it, leave a run folder."""

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from causal_lm_router.baselines import fit_baseline
from causal_lm_router.baselines.score_table import Predictor
from causal_lm_router.config import (
    PROMPTED,
    BaselineConfig,
    BaselineRunConfig,
    EmbeddingBaselineConfig,
    FewShotConfig,
    TrainConfig,
)
from causal_lm_router.config.plain import config_dict, stored_config
from causal_lm_router.data.labels import rank_on_train
from causal_lm_router.data.prepared import PreparedData
from causal_lm_router.evaluation.metrics import Evaluation, evaluate_outcomes
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.files.locks import is_first_process
from causal_lm_router.models.base_model import prepare_base_model
from causal_lm_router.models.embeddings import Embedder
from causal_lm_router.models.torch_state import keep_random_state, keep_torch_settings
from causal_lm_router.prompting.few_shot import draw_shots, few_shot_template
from causal_lm_router.prompting.prompt import PromptFormat
from causal_lm_router.prompting.targets import Targets
from causal_lm_router.routing import Generation, ParsedRoute, RouteOutcome, RoutingExample
from causal_lm_router.runs.finish import Evaluate, finish_run
from causal_lm_router.runs.provenance import write_config
from causal_lm_router.runs.run_folder import RunFolder, check_folder, own_run
from causal_lm_router.runs.session import (
    check_splits,
    load_data,
    load_vocabulary,
    open_session,
)
from causal_lm_router.runs.start import log_start
from causal_lm_router.runs.tracking import open_run_tracking
from causal_lm_router.runs.workbench import Workbench, open_workbench

BASE_MODEL = "base_model"
"""The value of `baseline.embedding` that takes the hidden states of the base model: a probe, without finetuning."""


def run_baseline(config: BaselineRunConfig, workbench: Workbench | None = None) -> RoutingReport | None:
    """Fit the configured baseline, evaluate it and leave a run folder like that of a trained router, without weights.

    Jobs of one process share a workbench; without one the run has its own. Returns the report on the final split; None
    on processes other than the first, which have nothing to do.

    Raises:
        ValueError: the folder holds a finished run or one of another config, somebody else works there, or the settings
            do not fit the data.
    """
    folder = RunFolder(Path(config.run_dir))
    settings = config_dict(config)
    if not is_first_process():
        return None
    with own_run(folder), open_workbench(workbench) as workbench:
        check_folder(folder, settings)
        # Mistakes in data and settings show here, before anything is written.
        data = load_data(config.data, workbench)
        check_splits(config.evaluation, data)
        log_start(config, folder, data)
        start = time.perf_counter()
        with _open_baseline(config, data, folder, workbench) as evaluate:
            # Written once the settings have turned out to fit the data.
            write_config(folder.config, stored_config(config), config.data, data)
            fit_seconds = time.perf_counter() - start
            with open_run_tracking(config, settings, folder) as tracking:
                return finish_run(config, folder, data, evaluate, tracking, fit_seconds)


@contextmanager
def _open_baseline(
    config: BaselineRunConfig, data: PreparedData, folder: RunFolder, workbench: Workbench
) -> Iterator[Evaluate]:
    """Yield what evaluates the baseline on examples; torch and all random state are afterwards as they were."""
    # A prompted baseline is the bare base model under another prompt, read out as a trained router is.
    if config.baseline.method in PROMPTED:
        prompting = prompting_config(config, data, load_vocabulary(config.base_model, {}, workbench)[1])
        with open_session(prompting, folder, data, workbench) as session:
            yield functools.partial(session.evaluate, None, also=prompting.decoding.also)
        return
    # The others are fitted here, and may use torch: to embed queries, or for a small network.
    with keep_random_state(), keep_torch_settings():
        if config.trainer.num_threads is not None:
            torch.set_num_threads(config.trainer.num_threads)
        settings = _name_embedding(config)
        predict = fit_baseline(
            settings,
            data.train,
            data.splits.pool,
            data.labels,
            config.seed,
            functools.partial(_embed, settings),
        )
        yield functools.partial(_evaluate, predict, data)


def _name_embedding(config: BaselineRunConfig) -> BaselineConfig:
    """Return the baseline's settings, with the base model's own place where it gives the vectors."""
    settings = config.baseline
    if isinstance(settings, EmbeddingBaselineConfig) and settings.embedding == BASE_MODEL:
        return replace(settings, embedding=prepare_base_model(config.base_model))
    return settings


def _embed(baseline: BaselineConfig, texts: Sequence[str]) -> NDArray[np.floating]:
    """Return the vectors of the texts; only baselines that read vectors ask for them."""
    assert isinstance(baseline, EmbeddingBaselineConfig)
    return Embedder(baseline.embedding)(texts)


def _evaluate(
    predict: Predictor,
    data: PreparedData,
    examples: Sequence[RoutingExample],
    *,
    with_predictions: bool = False,
    validation: Evaluation | None = None,
) -> Evaluation:
    """Route every example to the candidate of the highest prediction; among equals to the best on train.

    Without a speed: how long it takes depends on which queries have been embedded before.
    """
    predicted = predict(examples)  # a row per example, a column per candidate
    assert predicted.shape == (len(examples), len(data.candidate_names)), predicted.shape
    assert np.isfinite(predicted).all(), "every candidate has a number"
    # `max` takes the first of equals, so the names go in order of their mean score on train.
    preferred = rank_on_train(data.splits.train, data.splits.pool)
    outcomes = [
        _outcome(
            example,
            data.labels[example.query_id],
            dict(zip(data.candidate_names, map(float, row), strict=True)),
            preferred,
        )
        for example, row in zip(examples, predicted, strict=True)
    ]
    return evaluate_outcomes(
        outcomes,
        data.candidate_names,
        data.best_single,
        means=data.train_means,
        with_predictions=with_predictions,
        validation=validation,
    )


def _outcome(
    example: RoutingExample, label: str, predicted: dict[str, float], preferred: Sequence[str]
) -> RouteOutcome:
    # No text is generated: the candidate's name stands for it, so that outcomes of all routers look alike.
    route = max(preferred, key=lambda name: predicted[name])
    return RouteOutcome(
        example=example,
        label=label,
        generation=Generation(route, "stop"),
        route=ParsedRoute(route),
        called=route,
        predicted=predicted,
    )


def prompting_config(config: BaselineRunConfig, data: PreparedData, tokenizer: PreTrainedTokenizerBase) -> TrainConfig:
    """Return the config under which the bare base model is asked: for `few_shot` its template holds the shots.

    `prompt.max_length` is for query and target alone, so that a query is cut no shorter than for a trained router,
    whose prompt is short: the length of everything else comes on top of it.
    """
    prompt = config.prompt
    targets = Targets(config.target.kind, tuple(data.candidate_names), prompt.target)
    text = PromptFormat(prompt.template, targets, prompt.neutralise_markers, prompt.shuffle_seed)
    # Shots come from the training queries alone, so none of them is asked later.
    if isinstance(config.baseline, FewShotConfig):
        shots = draw_shots(data.train, data.labels, config.baseline.num_shots, config.seed)
        text = replace(text, template=few_shot_template(text, shots, data.labels))
    # Everything in the prompt but the query: instruction, candidates and shots.
    num_fixed = len(tokenizer(text.prompt_text(""), split_special_tokens=True)["input_ids"])
    prompt = replace(prompt, template=text.template, max_length=prompt.max_length + num_fixed)
    return replace(config, prompt=prompt)
