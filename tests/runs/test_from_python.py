"""The package from Python: training, evaluating, routing with overrides, and reports as a data frame."""

import inspect
from pathlib import Path

import pytest

import causal_lm_router
from causal_lm_router import CausalLMRouter, evaluate, report_frame, train
from causal_lm_router.config import Backend, DecodingMethod
from causal_lm_router.config.generation import ParseMode
from causal_lm_router.evaluation.stored import read_report


def test_public_names_are_listed_and_importable() -> None:
    assert set(causal_lm_router.__all__) <= set(dir(causal_lm_router))
    assert {"CausalLMRouter", "CausalLMRouterTrainer"} <= set(dir(causal_lm_router))
    for name in causal_lm_router.__all__:
        assert name == "__version__" or inspect.getdoc(getattr(causal_lm_router, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'rout'"):
        _ = causal_lm_router.rout


def test_a_run_routes_with_overrides(smoke_run: Path) -> None:
    overrides = ["parsing=lenient", "decoding=scored", "decoding.normalisation=mean", "inference.batch_size=3"]
    with CausalLMRouter.from_run(smoke_run, overrides=overrides) as router:
        config = router.config
        assert (config.parsing.mode, config.decoding.method) == (ParseMode.lenient, DecodingMethod.scored)
        assert (config.inference.backend, config.inference.batch_size) == (Backend.transformers, 3)
        assert router.route_single({"query": "a"})["predicted"]


REFUSED = {
    "lora.lora_r=4": "lora.lora_r must stay as the run has it, got 'lora.lora_r=4': route takes ",
    "+target=token": "target must stay as the run has it",
    "inference.temperature=-1": "inference.temperature must be a number of at least 0, got -1.0",
    "parsing.mod=lenient": "did you mean parsing.mode",
}


@pytest.mark.parametrize("override", REFUSED)
def test_overrides_that_routing_does_not_honour_are_refused(override: str, smoke_run: Path) -> None:
    with pytest.raises(ValueError) as caught:
        CausalLMRouter.from_run(smoke_run, overrides=[override])
    assert REFUSED[override] in str(caught.value)


def test_overrides_and_a_config_exclude_each_other(smoke_run: Path) -> None:
    config = CausalLMRouter.from_run(smoke_run).config
    with pytest.raises(ValueError, match="overrides must be empty where a config is given"):
        CausalLMRouter.from_run(smoke_run, config, overrides=["parsing=lenient"])


@pytest.mark.slow
def test_train_evaluate_and_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["data=simulated", "debug=smoke", "tracking.tensorboard=false", "trainer.progress_bar=false"]
    run = train([*small, "run_dir=first=[1]"])
    assert run.folder == Path("first=[1]")
    assert run.report == read_report(run.folder)
    again = evaluate(run.folder, ["decoding=scored", "evaluation.max_queries=5", "output_dir=again"])
    assert again.report.num_queries == 5
    with pytest.raises(ValueError, match="target must stay as the run has it"):
        evaluate(run.folder, ["target=token"])

    frame = report_frame([run.folder, again.folder])
    assert list(frame.columns[:4]) == ["folder", "name", "seed", "split"]
    of_run = frame[(frame.folder == str(run.folder)) & (frame.task == "all tasks")].set_index(["who", "estimate"])
    assert of_run.loc[("router", "mean_score"), "value"] == run.report.mean_score.value
    oracle = run.report.references["oracle"].mean_score
    assert of_run.loc[("oracle", "mean_score"), "high"] == oracle.high
    assert set(frame[frame.task != "all tasks"].task) == set(run.report.per_task) | set(again.report.per_task)
    assert set(frame.name) == {"smoke"}


def test_a_frame_of_a_folder_without_a_report_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        report_frame(tmp_path)
