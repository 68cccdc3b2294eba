"""Objectives against plain reference implementations, values and gradients, and what they may not depend on."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from causal_lm_router.models.base_model import load_base_model
from causal_lm_router.models.target_logprobs import score_log_odds, target_logprobs
from causal_lm_router.prompting.token_trie import make_trie, reference_trie
from causal_lm_router.training.objective import (
    expected_score_loss,
    make_loss,
    multi_positive_loss,
    outcome_loss,
    per_candidate_loss,
    soft_loss,
)
from causal_lm_router.training.rows import collate

END = 2
TARGETS = [[71, 72, END], [71, 72, 73, END], [90, END]]
PROMPTS = [[13, 14, 15, 16, 17], [18, 19]]
WORTHS = [[1.0, 0.0, 0.5], [0.25, 0.25, 1.0]]


def rows() -> list[dict[str, Any]]:
    return [
        {"input_ids": prompt, "num_target_tokens": 0, "weight": weight, "utilities": utilities}
        for prompt, utilities, weight in zip(PROMPTS, WORTHS, (1.0, 0.5), strict=True)
    ]


def plain_logprob(model: torch.nn.Module, prompt: list[int], target: list[int]) -> Tensor:
    """Sum of a target's token log-probabilities by one forward pass over prompt and target."""
    logprobs = model(input_ids=torch.tensor([prompt + target])).logits[0].float().log_softmax(-1)
    return torch.stack([logprobs[len(prompt) - 1 + place, token] for place, token in enumerate(target)]).sum()


@pytest.fixture
def model(tiny_base: Any) -> torch.nn.Module:
    return load_base_model(tiny_base.path, tiny_base.config).eval()


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_tree_logprobs_are_those_of_one_pass_a_target(model: torch.nn.Module, kernel: str) -> None:
    model.set_attn_implementation(kernel)
    batch = collate(rows(), 0)
    trie = make_trie([*TARGETS, [END]])
    with torch.no_grad():
        found = target_logprobs(model, batch.input_ids, batch.attention_mask, trie)
        expected = [[plain_logprob(model, prompt, list(one)) for one in trie.sequences] for prompt in PROMPTS]
    assert torch.allclose(found, torch.tensor(expected), atol=1e-4)


def test_a_kernel_without_masks_of_its_own_is_refused(model: torch.nn.Module) -> None:
    batch = collate(rows(), 0)
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(
        ValueError, match=r"base_model\.attn_implementation must be packed, sdpa or eager .*'flash_attention_2'"
    ):
        target_logprobs(model, batch.input_ids, batch.attention_mask, make_trie(TARGETS))


def reference_loss(kind: str, logprobs: list[Tensor], end: Tensor, utilities: list[float]) -> Tensor:
    """The losses written out candidate by candidate; temperature 0.5, offset 3, weight 0.2."""
    if kind == "multi_positive":
        return -torch.log(sum(p.exp() for p, w in zip(logprobs, utilities, strict=True) if w == max(utilities)))
    if kind == "soft":
        total = sum(math.exp(utility / 0.5) for utility in utilities)
        return -sum(math.exp(utility / 0.5) / total * p for p, utility in zip(logprobs, utilities, strict=True))
    if kind == "expected_score":
        chances = [logprob.exp() for logprob in logprobs]
        expected = sum(chance * utility for chance, utility in zip(chances, utilities, strict=True)) / sum(chances)
        return -expected - 0.2 * torch.log(sum(chances))
    entropy = torch.zeros(())
    for logprob, utility in zip(logprobs, utilities, strict=True):
        chance = 1 / (1 + torch.exp(-(logprob - end - 3.0)))
        entropy = entropy - utility * torch.log(chance) - (1 - utility) * torch.log(1 - chance)
    return entropy / len(utilities) - 0.2 * torch.log(sum(p.exp() for p in logprobs))


@pytest.mark.parametrize("kind", ["multi_positive", "soft", "per_candidate", "expected_score"])
@pytest.mark.slow
def test_losses_and_gradients_are_those_of_the_reference(
    model: torch.nn.Module, tiny_config: Callable[..., Any], kind: str
) -> None:
    settings = ["objective.temperature=0.5", "objective.reference_offset=3.0", "objective.valid_weight=0.2"]
    loss = make_loss(tiny_config(f"objective={kind}", *settings).objective, TARGETS, END)
    found = loss(model, collate(rows(), 0))
    found.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    expected = torch.zeros(())
    for prompt, utilities, weight in zip(PROMPTS, WORTHS, (1.0, 0.5), strict=True):
        logprobs = [plain_logprob(model, prompt, target) for target in TARGETS]
        expected = expected + weight * reference_loss(kind, logprobs, plain_logprob(model, prompt, [END]), utilities)
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, weight in model.named_parameters():
        assert torch.allclose(gradients[name], weight.grad, rtol=1e-3, atol=1e-5), name


def test_multi_positive_by_hand() -> None:
    logprobs = torch.log(torch.tensor([[0.2, 0.3, 0.1]]))
    assert multi_positive_loss(logprobs, torch.tensor([[1.0, 0.0, 1.0]])).item() == pytest.approx(-math.log(0.3))


def test_soft_is_least_at_the_shares_it_asks_for() -> None:
    utilities = torch.tensor([[1.0, 0.0]])
    share = 1 / (1 + math.exp(-2))
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    at_best = soft_loss(torch.log(torch.tensor([[share, 1 - share]])), utilities, temperature=0.5).item()
    assert at_best == pytest.approx(entropy)
    assert soft_loss(torch.log(torch.tensor([[0.5, 0.5]])), utilities, temperature=0.5).item() > at_best


def test_expected_score_by_hand() -> None:
    # Among the three targets the chances are 1/3, 1/2 and 1/6.
    logprobs = torch.log(torch.tensor([[0.2, 0.3, 0.1]])).requires_grad_()
    utilities = torch.tensor([[1.0, 0.5, -1.0]])
    loss = expected_score_loss(logprobs, utilities, 0.0)
    assert loss.item() == pytest.approx(-(1 / 3 + 1 / 4 - 1 / 6))
    loss.sum().backward()
    assert logprobs.grad is not None
    # Each candidate's share times what it gains over the mean of 5/12.
    assert logprobs.grad[0].tolist() == pytest.approx([-7 / 36, -1 / 24, 17 / 72], abs=1e-6)
    valid = expected_score_loss(logprobs, utilities, 0.5).item()
    assert valid == pytest.approx(loss.item() - 0.5 * math.log(0.6))


def test_per_candidate_by_hand() -> None:
    # log-odds log(.4 / .1) - log 2 = log 2 and log(.2 / .1) - log 2 = 0: chances 2/3 and 1/2
    logprobs = torch.log(torch.tensor([[0.4, 0.2, 0.1]]))
    assert score_log_odds(logprobs, math.log(2)).tolist()[0] == pytest.approx([math.log(2), 0.0], abs=1e-6)
    loss = per_candidate_loss(logprobs, torch.tensor([[1.0, 0.5]]), math.log(2), 0.0).item()
    assert loss == pytest.approx((-math.log(2 / 3) - math.log(1 / 2)) / 2)
    valid = per_candidate_loss(logprobs, torch.tensor([[1.0, 0.5]]), math.log(2), 0.5).item()
    assert valid == pytest.approx(loss - 0.5 * math.log(0.6))


def test_all_candidates_can_be_good_at_once() -> None:
    logprobs = torch.log(torch.tensor([[0.499, 0.5, 0.001]]))
    assert torch.sigmoid(score_log_odds(logprobs, 1.0)).min().item() > 0.99


@pytest.mark.parametrize("kind", ["multi_positive", "soft", "per_candidate", "expected_score"])
@pytest.mark.slow
def test_held_out_candidates_teach_nothing(tiny_config: Callable[..., Any], kind: str) -> None:
    config = tiny_config(f"objective={kind}").objective
    logprobs = torch.log(torch.tensor([[0.4, 0.2, 0.3, 0.1]])).requires_grad_()
    utilities = torch.tensor([[0.0, 1.0, math.nan]])
    losses = {
        "multi_positive": lambda: multi_positive_loss(logprobs[:, :3], utilities),
        "soft": lambda: soft_loss(logprobs[:, :3], utilities, config.temperature),
        "per_candidate": lambda: per_candidate_loss(logprobs, utilities, 1.0, 0.5),
        "expected_score": lambda: expected_score_loss(logprobs[:, :3], utilities, 0.5),
    }
    losses[kind]().sum().backward()
    assert logprobs.grad is not None
    assert torch.isfinite(logprobs.grad).all()
    assert logprobs.grad[0, 2] == 0
    assert logprobs.grad[0, 1] != 0


def test_the_reference_comes_last() -> None:
    assert reference_trie(TARGETS, END).sequences[-1] == (END,)


@pytest.mark.parametrize("sequences", [[], [[]], [[1, 2], [1, 2]], [[1], [1, 2]]])
def test_sequences_that_are_no_trie_are_refused(sequences: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="targets: "):
        make_trie(sequences)


def test_the_loss_of_outcomes_is_the_cross_entropy_to_the_score() -> None:
    yes, no = [-0.5, -2.0, -1.0], [-3.0, -0.25, -1.5]
    losses = outcome_loss(torch.tensor([yes, no]).T, torch.tensor([[1.0], [0.0], [0.25]]))
    assert losses.tolist() == pytest.approx([0.5, 0.25, 0.25 * 1.0 + 0.75 * 1.5])


def test_pairs_packed_with_their_query_have_the_gradient_of_single_rows(
    tiny_base: Any, tiny_config: Callable[..., Any]
) -> None:
    # A beginning of 20 tokens that three rows share, and rests of their own.
    rests, scores = [[30, 31], [40, 41, 42], [50]], [1.0, 0.0, 0.3]
    pairs = [
        {"input_ids": [*range(100, 120), *rest], "num_target_tokens": 0, "weight": 1.0, "utilities": [score]}
        for rest, score in zip(rests, scores, strict=True)
    ]
    config = tiny_config("target=outcome", "objective=soft").objective
    loss = make_loss(config, [[71, END], [90, END]], END, of_outcomes=True)

    def gradients(kernel: str, batches: list[list[dict[str, Any]]]) -> tuple[float, Tensor]:
        model = load_base_model(tiny_base.path, tiny_base.config).eval()
        model.set_attn_implementation(kernel)
        total = torch.stack([loss(model, collate(batch, 0)) for batch in batches]).sum()
        total.backward()
        return total.item(), torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])

    model = load_base_model(tiny_base.path, tiny_base.config).eval()
    expected = sum(
        -score * plain_logprob(model, row["input_ids"], [71, END]).item()
        - (1 - score) * plain_logprob(model, row["input_ids"], [90, END]).item()
        for row, score in zip(pairs, scores, strict=True)
    )
    single, single_gradients = gradients("sdpa", [[row] for row in pairs])
    packed, packed_gradients = gradients("packed", [pairs])
    assert single == pytest.approx(expected, rel=1e-4)
    assert packed == pytest.approx(single, rel=1e-4)
    assert (packed_gradients - single_gradients).norm() < 1e-3 * single_gradients.norm()
