"""Finetuning: encoded data, module and callbacks put into a Lightning Trainer."""

import logging
import signal
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import datasets
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException

from causal_lm_router.config import ObjectiveKind, TrainConfig
from causal_lm_router.evaluation.metrics import Evaluation
from causal_lm_router.files import cache_dir
from causal_lm_router.models.base_model import save_weights
from causal_lm_router.runs.session import Session, record_evaluation
from causal_lm_router.runs.tracking import Tracking
from causal_lm_router.terminal import name_work
from causal_lm_router.training.batches import StepLoader
from causal_lm_router.training.callback import RoutingEvaluation
from causal_lm_router.training.checkpoint import LastCheckpoint, last_checkpoint
from causal_lm_router.training.frozen_layers import HiddenStates, reuse_frozen_layers
from causal_lm_router.training.module import RouterModule
from causal_lm_router.training.objective import make_loss
from causal_lm_router.training.rows import Supervision, encode_examples
from causal_lm_router.training.trainer import make_trainer

logger = logging.getLogger(__name__)


def fit(session: Session, tracking: Tracking) -> None:
    """Train the session's base model and write the weights to the run folder; go on from a checkpoint that is there.

    On several processes each comes back from here; the first one writes.
    """
    config = session.config
    encoder = session.encoder
    rows = encode_examples(
        session.data.train, session.data.labels, encoder, cache_dir(), _supervision(config, session.data.supervised)
    )
    new_tokens = encoder.targets.new_tokens
    with (
        session.workbench.model(config.base_model, config.lora, config.seed, new_tokens) as model,
        _hidden_states(session, rows, model) as hidden_states,
    ):
        trainer = _fit_model(session, tracking, rows, model.train(), hidden_states)
        if trainer.is_global_zero:
            save_weights(model.cpu(), session.encoder.tokenizer, session.folder.weights)


def _supervision(config: TrainConfig, supervised: tuple[str, ...] | None) -> Supervision:
    kind, weight = config.objective.kind, config.objective.undecided_weight
    # Per candidate it is the score that is predicted; costs come in when the predictions are used.
    cost_weight = 0.0 if kind is ObjectiveKind.per_candidate else config.data.cost_weight
    return Supervision(kind is ObjectiveKind.completion, cost_weight, weight, supervised)


def _hidden_states(
    session: Session, rows: datasets.Dataset, model: torch.nn.Module
) -> AbstractContextManager[HiddenStates | None]:
    """Return the hidden states of the frozen layers for the rows, where the config asks to reuse them."""
    config, encoder = session.config, session.encoder
    if not config.trainer.reuse_frozen_layers:
        return nullcontext()
    assert config.lora.num_layers is not None, "the config is checked"
    identity = repr((config.base_model, encoder.targets.new_tokens))
    pad = encoder.tokenizer.pad_token_id
    return reuse_frozen_layers(model, rows, pad, config.lora.num_layers, identity, cache_dir())


def _fit_model(
    session: Session,
    tracking: Tracking,
    rows: datasets.Dataset,
    model: torch.nn.Module,
    hidden_states: HiddenStates | None,
) -> pl.Trainer:
    config, folder = session.config, session.folder
    trainer = make_trainer(config.trainer, folder.path, tracking.loggers)
    rows_per_step = config.trainer.batch_size * config.trainer.accumulate_grad_batches * trainer.world_size
    max_tokens, pad_token_id = config.trainer.max_tokens_per_batch, session.encoder.tokenizer.pad_token_id
    loader = StepLoader(rows, pad_token_id, rows_per_step, max_tokens, config.seed, trainer, hidden_states)
    num_steps = len(loader) * config.trainer.num_epochs
    if trainer.max_steps > 0:
        num_steps = min(num_steps, trainer.max_steps)
    loss = make_loss(
        config.objective, list(session.encoder.target_ids.values()), session.encoder.tokenizer.eos_token_id
    )
    module = RouterModule(model, config.optim, num_steps, config.seed, config.trainer.log_every_n_steps, loss)
    trainer.callbacks += [  # type: ignore[attr-defined]
        _evaluation_callback(session, tracking, len(loader)),
        LastCheckpoint(folder.checkpoints, config.trainer.checkpoint_every_n_steps),
    ]
    checkpoint = last_checkpoint(folder.checkpoints)
    if checkpoint is None:
        tracking.log_report({"truncation_rate": float(np.mean(rows["was_cut"][:]))}, "train", 0)
    else:
        logger.info("continuing from %s", checkpoint)
    try:
        trainer.fit(module, train_dataloaders=loader, ckpt_path=checkpoint)
    except SIGTERMException:
        # Lightning's own status would be 0, as if the run had come to its end.
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit:
        # So Lightning ends the process after Ctrl-C, with status 1 as after an error.
        if not trainer.interrupted:
            raise
    if trainer.interrupted:
        raise KeyboardInterrupt
    return trainer


def _evaluation_callback(session: Session, tracking: Tracking, steps_per_epoch: int) -> RoutingEvaluation[Evaluation]:
    evaluation = session.config.evaluation
    examples = session.data.examples(evaluation.split, evaluation.max_queries, session.config.data.split_seed)

    def save(model: torch.nn.Module, weights_dir: Path) -> None:
        save_weights(model, session.encoder.tokenizer, weights_dir)

    def evaluate(weights_dir: Path) -> Evaluation:
        with name_work(evaluation.split.value):
            return session.evaluate(weights_dir, examples)

    def record(result: Evaluation, step: int) -> None:
        record_evaluation(tracking, result, evaluation.split.value, step)
        if session.on_evaluation is not None:
            session.on_evaluation(result.report, step)

    return RoutingEvaluation(
        evaluation,
        steps_per_epoch,
        save,
        evaluate=evaluate,
        record=record,
    )
