"""The warnings of a run's report: which of them apply to a trained router, a baseline and an oracle."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from causal_lm_router.config.compose import compose_config
from causal_lm_router.evaluation.metrics import Evaluation, evaluate_outcomes
from causal_lm_router.models.adapter import changes_nothing
from causal_lm_router.routing import Generation, ParsedRoute, ParseFailure, RouteOutcome, RoutingExample
from causal_lm_router.runs.run_warnings import add_warnings
from tests.conftest import tiny_data

NAMES = ("alpha", "beta-2")


def write_adapter(folder: Path, b: float) -> Path:
    """An adapter of one layer whose B matrix has one entry other than 0."""
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    matrix = torch.zeros(4, 2)
    matrix[1, 1] = b
    folder.mkdir()
    save_file(
        {f"{layer}.lora_A.weight": torch.ones(2, 4), f"{layer}.lora_B.weight": matrix},
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.mark.parametrize(("b", "nothing"), [(0.0, True), (1e-12, True), (-1e-5, False), (float("nan"), False)])
def test_an_adapter_without_effect_is_told_by_its_matrices(b: float, nothing: bool, tmp_path: Path) -> None:
    assert changes_nothing(write_adapter(tmp_path / "adapter", b)) == nothing


def evaluation_of(route: Callable[[str], str | None]) -> Evaluation:
    """20 queries, of which each candidate is best on half; `route` names a candidate, or none, given the best one."""
    outcomes = []
    for index in range(20):
        best = NAMES[index % 2]
        example = RoutingExample(str(index), "text", "task", {name: float(name == best) for name in NAMES})
        name = route(best)
        parsed = ParsedRoute(name) if name else ParsedRoute(None, ParseFailure.unknown)
        outcomes.append(
            RouteOutcome(example=example, label=best, generation=Generation("x", "stop"), route=parsed, called=name)
        )
    return evaluate_outcomes(outcomes, NAMES, "alpha")


def warnings_of(evaluation: Evaluation, config: Any, weights_dir: Path | None, **splits: Any) -> list[str]:
    """The beginnings of an evaluation's warnings; their wording is the matter of those who write them."""
    data = dataclasses.replace(tiny_data().splits, **splits)
    return [text.split(" ", 3)[2] for text in add_warnings(evaluation, config, data, weights_dir).report.warnings]


def test_a_trained_router_is_warned_of_all_that_is_wrong_the_cause_first(
    tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    still, moved = write_adapter(tmp_path / "still", 0.0), write_adapter(tmp_path / "moved", 0.1)
    config, failed = tiny_config(), evaluation_of(lambda best: None)
    assert warnings_of(failed, config, still, warnings=("a b source",)) == ["source", "changes", "20"]
    assert warnings_of(failed, config, moved) == ["20"]
    assert warnings_of(evaluation_of(lambda best: "alpha"), config, moved) == ["the"]
    assert warnings_of(evaluation_of(lambda best: best), config, moved) == ["chose"]
    once_wrong = iter(["beta-2"])
    assert warnings_of(evaluation_of(lambda best: next(once_wrong, best)), config, moved) == []
    # Whole weights do not show what training did.
    (still / "adapter_config.json").unlink()
    assert warnings_of(failed, config, still) == ["20"]


@pytest.mark.slow
def test_a_baseline_is_not_warned_of_what_it_is_made_for() -> None:
    def config(method: str) -> Any:
        return compose_config([f"baseline={method}", "data=simulated", "debug=smoke", "run_dir=none"], "baseline")

    same, right = evaluation_of(lambda best: "alpha"), evaluation_of(lambda best: best)
    for method in ("best_single", "cheapest", "most_expensive", "majority_label"):
        assert warnings_of(same, config(method), None) == []
    assert warnings_of(same, config("svm"), None) == ["the"]
    for method in ("oracle", "cheapest_oracle"):
        assert warnings_of(right, config(method), None) == []
    assert warnings_of(right, config("svm"), None) == ["chose"]


def test_neighbours_that_are_every_training_query_are_warned_of() -> None:
    num_train = len(tiny_data().splits.train)
    for k, expected in ((num_train, ["is"]), (num_train - 1, [])):
        overrides = ["baseline=knn_vote", f"baseline.k={k}", "data=simulated", "data.keep_undecided=true"]
        config = compose_config([*overrides, "debug=smoke", "run_dir=none"], "baseline")
        once_wrong = iter(["beta-2"])
        found = add_warnings(
            evaluation_of(lambda best, wrong=once_wrong: next(wrong, best)), config, tiny_data().splits, None
        )
        assert [text.split(" ", 3)[1] for text in found.report.warnings] == expected
