"""Finetuning: encoded data, module and callbacks put into a Lightning Trainer."""

import logging
import signal
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import datasets
import numpy as np
import pytorch_lightning as pl
import torch
import transformers
from pytorch_lightning.utilities.exceptions import SIGTERMException
from transformers import PreTrainedModel

from causal_lm_router.config import ObjectiveKind, OutcomeTargetConfig
from causal_lm_router.evaluation.metrics import Evaluation
from causal_lm_router.files.checksums import add_checksum
from causal_lm_router.files.writing import cache_dir
from causal_lm_router.models.adapter import apply_lora, save_weights
from causal_lm_router.models.base_model import find_version, load_base_model
from causal_lm_router.models.hub import hub_name
from causal_lm_router.models.packed_rows import can_pack
from causal_lm_router.prompting.pair_encoder import PairEncoder
from causal_lm_router.routing import RoutingExample
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
    config, encoder, folder = session.config, session.encoder, session.folder
    # The rows first: data that cannot be encoded shows before a base model is loaded.
    rows = _encode_rows(session)
    lent_model = _lend_model(session)
    trainer = make_trainer(config.trainer, folder.path, tracking.loggers)
    targets, end = list(encoder.target_ids.values()), encoder.tokenizer.eos_token_id
    loss = make_loss(config.objective, targets, end, of_outcomes=isinstance(encoder, PairEncoder))
    with (
        lent_model as model,
        _reuse_hidden_states(session, rows, model) as hidden,
    ):
        loader = _make_loader(session, rows, model, trainer, hidden)
        num_steps = _count_steps(session, trainer, loader)
        _log_start(session, trainer, model, num_steps)
        # The loader counts the steps of an epoch, so these callbacks come after the trainer is made.
        trainer.callbacks += _make_callbacks(session, tracking, len(loader))  # type: ignore[attr-defined]
        module = RouterModule(
            model.train(), config.optim, num_steps, config.seed, config.trainer.log_every_n_steps, loss
        )
        # Recorded once: a run that goes on from a checkpoint has recorded it already.
        checkpoint = last_checkpoint(folder.checkpoints)
        if checkpoint is None:
            tracking.log_report({"truncation_rate": float(np.mean(rows["was_cut"][:]))}, "train", 0)
        _run(trainer, module, loader, checkpoint)
        # All processes hold the same weights; one of them writes.
        if trainer.is_global_zero:
            # Before the weights, which mark the end of training: what comes after belongs to the end of the run.
            add_checksum(folder.metrics)
            save_weights(model.cpu(), encoder.tokenizer, folder.weights, hub_name(config.base_model))


def _encode_rows(session: Session) -> datasets.Dataset:
    """Return the training rows: prompts, and what the objective is supervised by."""
    data, objective = session.data, session.config.objective
    # Where scores are predicted, costs come in when the predictions are used.
    predicts_scores = objective.kind is ObjectiveKind.per_candidate or isinstance(session.encoder, PairEncoder)
    cost_weight = 0.0 if predicts_scores else session.config.data.cost_weight
    with_target = objective.kind is ObjectiveKind.completion
    supervision = Supervision(
        with_target=with_target,
        cost_weight=cost_weight,
        undecided_weight=objective.undecided_weight,
        balance_targets=objective.balance_targets,
        supervised=data.supervised,
        whole_row=objective.whole_row,
        end_token=objective.end_token,
        cut_rows=objective.cut_rows,
    )
    return encode_examples(_trained_examples(session), data.labels, session.encoder, cache_dir(), supervision)


def _trained_examples(session: Session) -> list[RoutingExample]:
    """Return the training queries, or those drawn of them where the target limits their number."""
    train, target = session.data.train, session.config.target
    limit = target.max_trained_queries if isinstance(target, OutcomeTargetConfig) else None
    if limit is None or len(train) <= limit:
        return train
    # A larger number keeps all queries that a smaller one draws.
    order = np.random.default_rng(session.config.data.split_seed).permutation(len(train))
    return [train[index] for index in sorted(order[:limit])]


def _lend_model(session: Session) -> AbstractContextManager[torch.nn.Module]:
    """Lend the base model with a fresh adapter, or as it is where all weights train."""
    config, encoder, source = session.config, session.encoder, session.source
    # Where targets are new tokens, each begins with its own id.
    new_token_ids = [ids[0] for ids in encoder.target_ids.values()] if encoder.targets.are_tokens else []

    def load() -> PreTrainedModel:
        return load_base_model(source, config.base_model)

    def adapt(base_model: PreTrainedModel) -> torch.nn.Module:
        return apply_lora(base_model, config.lora, config.seed, new_token_ids)

    return session.workbench.lend_base_model(repr((source, config.base_model)), load, adapt)


def _reuse_hidden_states(
    session: Session, rows: datasets.Dataset, model: torch.nn.Module
) -> AbstractContextManager[HiddenStates | None]:
    """Open the hidden states of the frozen layers, computed once for every row, where the config asks for them."""
    config, encoder = session.config, session.encoder
    if not config.trainer.reuse_frozen_layers:
        return nullcontext()
    assert config.lora.num_layers is not None, "the config is checked"
    # The states on disk are named by what they depend on: the base model's files, how they are run, and the rows.
    base_model, versions = config.base_model, (torch.__version__, transformers.__version__)
    content = find_version(session.source, base_model)
    identity = repr((content, base_model.dtype, base_model.attn_implementation, versions))
    pad = encoder.tokenizer.pad_token_id
    return reuse_frozen_layers(model, rows, pad, config.lora.num_layers, identity, cache_dir())


def _make_loader(
    session: Session, rows: datasets.Dataset, model: torch.nn.Module, trainer: pl.Trainer, hidden: HiddenStates | None
) -> StepLoader:
    """Return the loader of optimizer steps: each the rows of one step on all processes, in micro-batches."""
    # Every process brings batches of its own, so a step has more queries where there are more processes.
    settings, pad = session.config.trainer, session.encoder.tokenizer.pad_token_id
    queries_per_step = settings.batch_size * settings.accumulate_grad_batches * trainer.world_size
    max_tokens, packs = settings.max_tokens_per_batch, can_pack(model, max(rows["num_tokens"][:]))
    seed, names = session.config.seed, session.data.supervised or session.data.candidate_names
    rows_per_query = len(names) if isinstance(session.encoder, PairEncoder) else 1
    return StepLoader(
        rows, pad, queries_per_step, max_tokens, seed, trainer, hidden, packs=packs, rows_per_query=rows_per_query
    )


def _count_steps(session: Session, trainer: pl.Trainer, loader: StepLoader) -> int:
    """Return how many optimizer steps the training takes: the schedule of the learning rate spans them."""
    num_steps = len(loader) * session.config.trainer.num_epochs
    # Without a limit of its own a Trainer says -1.
    return min(num_steps, trainer.max_steps) if trainer.max_steps > 0 else num_steps


def _make_callbacks(session: Session, tracking: Tracking, steps_per_epoch: int) -> list[pl.Callback]:
    """Return what happens between steps, in the order in which it happens."""
    return [
        _make_evaluation(session, tracking, steps_per_epoch),
        # After the evaluation, so that a checkpoint stands for a step that is wholly done.
        LastCheckpoint(
            session.folder.checkpoints, session.config.trainer.checkpoint_every_n_steps, session.folder.metrics
        ),
    ]


def _make_evaluation(session: Session, tracking: Tracking, steps_per_epoch: int) -> RoutingEvaluation[Evaluation]:
    """Return the callback that evaluates while training, on a fixed part of the split."""
    evaluation = session.config.evaluation
    # Drawn by the split's seed, so that runs with other training seeds are evaluated on the same queries.
    examples = session.data.examples(evaluation.split, evaluation.max_queries, session.config.data.split_seed)

    def save(model: torch.nn.Module, weights_dir: Path) -> None:
        save_weights(model, session.encoder.tokenizer, weights_dir)

    def evaluate(weights_dir: Path) -> Evaluation:
        with name_work(evaluation.split.value):
            return session.evaluate(weights_dir, examples)

    def record(result: Evaluation, step: int) -> None:
        record_evaluation(tracking, result, evaluation.split.value, step)
        # Last, since a search may end the run here.
        if session.on_evaluation is not None:
            session.on_evaluation(result.report, step)

    return RoutingEvaluation(
        evaluation.every_n_epochs,
        evaluation.every_n_steps,
        steps_per_epoch,
        save,
        evaluate=evaluate,
        record=record,
    )


def _log_start(session: Session, trainer: pl.Trainer, model: torch.nn.Module, num_steps: int) -> None:
    """Say what is about to train, and on what, once for all processes."""
    if not trainer.is_global_zero:
        return
    config, parameters = session.config, list(model.parameters())
    num_trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    num_all = sum(parameter.numel() for parameter in parameters)
    logger.info("base model: %s, %s of %s parameters train", config.base_model.name, f"{num_trained:,}", f"{num_all:,}")
    device = f"{trainer.world_size} x {trainer.strategy.root_device.type}"
    logger.info("training: %d steps on %s, precision %s", num_steps, device, trainer.precision)


def _run(trainer: pl.Trainer, module: RouterModule, loader: StepLoader, checkpoint: Path | None) -> None:
    """Train to the end, from a checkpoint where there is one; an interrupted training raises."""
    if checkpoint is not None:
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
