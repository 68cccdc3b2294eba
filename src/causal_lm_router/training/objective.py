"""What training minimises: one loss per objective, each summed over a micro-batch.

A utility of NaN marks a candidate that is held out of training. Shape suffixes: B rows of a batch, T positions, K the
last positions, C candidates, S sequences (of the candidates, and of the reference), V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, pad

from causal_lm_router.config import ObjectiveConfig, ObjectiveKind
from causal_lm_router.config.own_code import load_function
from causal_lm_router.models.packed_rows import Rows, row_logits
from causal_lm_router.models.target_logprobs import score_log_odds, target_logprobs
from causal_lm_router.prompting.token_trie import make_trie, reference_trie
from causal_lm_router.training.rows import IGNORED, MicroBatch

Loss = Callable[[torch.nn.Module, MicroBatch], Tensor]
"""Takes the base model and a micro-batch; returns the weighted sum of its rows' losses (nats)."""


class RowLoss(Protocol):
    """A loss of the user's own, for `objective=own`."""

    def __call__(self, logprobs_BC: Tensor, utilities_BC: Tensor, options: Mapping[str, Any]) -> Tensor:
        """Return [B]: the loss (nats) of every row.

        Args:
            logprobs_BC: log-probability of each candidate's target after the prompt, with its gradient.
            utilities_BC: score - data.cost_weight * cost of each candidate; NaN where it is held out of training.
            options: `objective.options`.
        """


def make_loss(
    config: ObjectiveConfig, target_ids: Sequence[Sequence[int]], end_id: int, *, of_outcomes: bool = False
) -> Loss:
    """Return the loss of an objective over targets given as token ids; `end_id` is the end token.

    `of_outcomes` says that the targets are yes and no, and that each row is about one candidate.
    """
    if config.kind is ObjectiveKind.completion:
        return completion_loss
    # All other objectives compare the targets of a query, so they need the likelihood of each of them.
    trie = reference_trie(target_ids, end_id) if config.kind is ObjectiveKind.per_candidate else make_trie(target_ids)
    row_loss = outcome_loss if of_outcomes else _row_loss(config)

    def loss(model: torch.nn.Module, micro_batch: MicroBatch) -> Tensor:
        logprobs_BS = target_logprobs(
            model, micro_batch.input_ids, micro_batch.attention_mask, trie, micro_batch.hidden_states
        )
        return (row_loss(logprobs_BS, micro_batch.utilities) * micro_batch.weights).sum()

    return loss


def completion_loss(model: torch.nn.Module, micro_batch: MicroBatch) -> Tensor:
    """Return the summed negative log-likelihood of the target tokens, each times its row's weight.

    Only the positions that predict a target token go through the LM head.
    """
    labels_BK = micro_batch.labels
    is_target_BK = labels_BK != IGNORED
    rows = Rows(
        input_ids=micro_batch.input_ids,
        is_token=micro_batch.attention_mask.bool(),
        position_ids=micro_batch.position_ids,
        hidden_states=micro_batch.hidden_states,
    )
    # A token is predicted at the position before it. The vocabulary is by far the largest dimension, so logits of
    # the prompt would cost more than the layers do.
    num_before = rows.input_ids.shape[1] - labels_BK.shape[1] - 1
    logits_WV = row_logits(model, rows, pad(is_target_BK, (num_before, 1)))
    # Summed, not averaged: the step divides by the number of target tokens of all its micro-batches and ranks.
    losses_W = cross_entropy(logits_WV, labels_BK[is_target_BK], reduction="none")
    return (losses_W * micro_batch.weights[:, None].expand_as(labels_BK)[is_target_BK]).sum()


def multi_positive_loss(logprobs_BC: Tensor, utilities_BC: Tensor) -> Tensor:
    """Return [B]: the negative log-likelihood of naming any best candidate, -log sum over the best of p(target)."""
    # Never the best, so of no probability below and of no gradient.
    utilities_BC = utilities_BC.nan_to_num(nan=float("-inf"))
    is_best_BC = utilities_BC == utilities_BC.max(dim=1, keepdim=True).values
    return -logprobs_BC.masked_fill(~is_best_BC, float("-inf")).logsumexp(dim=1)


def soft_loss(logprobs_BC: Tensor, utilities_BC: Tensor, temperature: float) -> Tensor:
    """Return [B]: the cross-entropy -sum q log p(target) to q = softmax(utility / temperature) over the candidates.

    It is KL(q || p) plus the entropy of q, which training cannot change. p covers everything that can be generated, so
    training also lowers the probability of texts that are no target.
    """
    # A candidate that is held out gets the share 0.
    shares_BC = torch.softmax(utilities_BC.nan_to_num(nan=float("-inf")) / temperature, dim=1)
    return -(shares_BC * logprobs_BC).sum(dim=1)


def outcome_loss(logprobs_B2: Tensor, scores_B1: Tensor) -> Tensor:
    """Return [B]: the cross-entropy -(s log p(yes) + (1 - s) log p(no)) to a candidate's score s.

    p covers everything that can be generated, so training also lowers the probability of other texts.
    """
    shares_B2 = torch.cat([scores_B1, 1 - scores_B1], dim=1)
    return -(shares_B2 * logprobs_B2).sum(dim=1)


def expected_score_loss(logprobs_BC: Tensor, utilities_BC: Tensor, valid_weight: float) -> Tensor:
    """Return [B]: minus the mean utility of a candidate drawn with p(target | any target), plus the validity term.

    It is the exact objective of a policy gradient over one choice, without sampling: its gradient makes a candidate
    likelier by its share times what it gains over that mean. Where all utilities are equal only the validity term
    (see `per_candidate_loss`) teaches.
    """
    is_supervised_BC = ~utilities_BC.isnan()
    supervised_BC = logprobs_BC.masked_fill(~is_supervised_BC, float("-inf"))
    shares_BC = supervised_BC.softmax(dim=1)
    mean_B = (shares_BC * utilities_BC.nan_to_num()).sum(dim=1)
    return -mean_B - valid_weight * supervised_BC.logsumexp(dim=1)


def per_candidate_loss(
    logprobs_BS: Tensor, utilities_BC: Tensor, reference_offset: float, valid_weight: float
) -> Tensor:
    """Return [B]: the mean binary cross-entropy of every candidate's log-odds to its score, plus the validity term.

    The last of the S = C + 1 sequences is the reference, to end at once. The validity term is
    -valid_weight * log sum of p(target): the log-odds leave open how likely anything else is.
    """
    log_odds_BC = score_log_odds(logprobs_BS, reference_offset)
    # The mean is over the candidates that are supervised; NaN times 0 would stay NaN, so NaN becomes 0 first.
    is_supervised_BC = ~utilities_BC.isnan()
    entropy_BC = binary_cross_entropy_with_logits(log_odds_BC, utilities_BC.nan_to_num(), reduction="none")
    entropy_B = (entropy_BC * is_supervised_BC).sum(dim=1) / is_supervised_BC.sum(dim=1)
    # Log of the probability that a generation names a candidate that is supervised.
    supervised_BC = logprobs_BS[:, :-1].masked_fill(~is_supervised_BC, float("-inf"))
    return entropy_B - valid_weight * supervised_BC.logsumexp(dim=1)


def _row_loss(config: ObjectiveConfig) -> Callable[[Tensor, Tensor], Tensor]:
    match config.kind:
        case ObjectiveKind.multi_positive:
            return multi_positive_loss
        case ObjectiveKind.soft:
            return lambda logprobs, utilities: soft_loss(logprobs, utilities, config.temperature)
        case ObjectiveKind.expected_score:
            return lambda logprobs, utilities: expected_score_loss(logprobs, utilities, config.valid_weight)
        case ObjectiveKind.own:
            return _own_row_loss(config)
        case _:
            offset, weight = config.reference_offset, config.valid_weight
            return lambda logprobs, utilities: per_candidate_loss(logprobs, utilities, offset, weight)


def _own_row_loss(config: ObjectiveConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the user's loss, with a check of what it returns: a loss of another shape would be summed in silence."""
    assert config.function is not None, "the config is checked"
    row_loss: RowLoss = load_function("objective.function", config.function, RowLoss)

    def checked(logprobs_BC: Tensor, utilities_BC: Tensor) -> Tensor:
        losses_B = row_loss(logprobs_BC, utilities_BC, config.options)
        if not isinstance(losses_B, Tensor) or losses_B.shape != logprobs_BC.shape[:1]:
            found = tuple(losses_B.shape) if isinstance(losses_B, Tensor) else type(losses_B).__name__
            raise ValueError(f"objective.function must return a loss for each of {len(logprobs_BC)} rows, got {found}")
        return losses_B

    return checked
