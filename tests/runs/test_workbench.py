"""Workbench: each thing is loaded once, and the base model is given on only as it was loaded."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

from causal_lm_router.models.adapter import apply_lora
from causal_lm_router.models.base_model import load_base_model, prepare_base_model
from causal_lm_router.runs import fit, session
from causal_lm_router.runs.session import load_data, load_vocabulary
from causal_lm_router.runs.workbench import Workbench, shared_workbench

Fit = Callable[..., dict[str, list[float]]]


@pytest.fixture
def workbench() -> Iterator[Workbench]:
    with Workbench() as workbench:
        yield workbench


@pytest.fixture
def num_loads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """Function that returns how often data, tokenizer and base model were loaded."""
    counts = [0, 0, 0]
    loads = ((session, "prepare_data"), (session, "load_tokenizer"), (fit, "load_base_model"))

    def counted(index: int, load: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any) -> Any:
            counts[index] += 1
            return load(*arguments)

        return count

    for index, (module, name) in enumerate(loads):
        monkeypatch.setattr(module, name, counted(index, getattr(module, name)))
    return lambda: list(counts)


def bits(model: torch.nn.Module) -> dict[str, tuple[torch.dtype, bytes, bool]]:
    """Every weight and buffer of a model to the bit, and whether it would be trained."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        name: (tensor.dtype, tensor.detach().view(-1).view(torch.uint8).numpy().tobytes(), tensor.requires_grad)
        for name, tensor in tensors
    }


def hooks(model: torch.nn.Module) -> list[tuple[str, str, int]]:
    """The hooks of every module."""
    return [
        (name, kind, len(held))
        for name, module in model.named_modules()
        for kind, held in vars(module).items()
        if kind.endswith("_hooks") and held
    ]


def lend(workbench: Workbench, config: Any, lora: Any = None) -> AbstractContextManager[Any]:
    """Lend the base model of a config with an adapter on it, as training does."""
    base_model = config.base_model
    return workbench.lend_base_model(
        repr(base_model),
        lambda: fit.load_base_model(prepare_base_model(base_model), base_model),
        lambda model: apply_lora(model, lora or config.lora, config.seed),
    )


def kept_model(workbench: Workbench) -> Any:
    """The base model that waits for the next job."""
    return workbench._base_model._value


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["lora=all_linear", "lora.lora_dropout=0.3"],
        ["lora.use_dora=true"],
        ["base_model.dtype=bfloat16"],
        ["trainer.precision=bf16-mixed"],
    ],
    ids=lambda overrides: " ".join(overrides) or "lora",
)
def test_base_model_comes_back_as_it_was_loaded(
    overrides: list[str], workbench: Workbench, fit_tiny: Fit, tiny_config: Callable[..., Any], tiny_base: Any
) -> None:
    metrics = fit_tiny(*overrides, workbench=workbench)
    kept, fresh = kept_model(workbench), load_base_model(tiny_base.path, tiny_config(*overrides).base_model)
    assert metrics["loss"][-1] != metrics["loss"][0], "it was trained"
    assert type(kept) is type(fresh)
    assert bits(kept) == bits(fresh)
    assert [(name, type(module), module.training) for name, module in kept.named_modules()] == [
        (name, type(module), module.training) for name, module in fresh.named_modules()
    ]
    assert hooks(kept) == hooks(fresh) == []
    assert kept.config.to_dict() == fresh.config.to_dict()
    assert vars(kept).keys() == vars(fresh).keys()


def test_kept_base_model_trains_as_a_fresh_one_does(
    workbench: Workbench, fit_tiny: Fit, num_loads: Callable[[], list[int]]
) -> None:
    varied = [
        ["lora.lora_dropout=0.2"],
        ["lora.lora_r=4", "seed=3", "lora=all_linear"],
        ["lora.use_dora=true", "optim.learning_rate=0.003"],
        ["lora.use_lora=false"],
        ["lora.lora_dropout=0.2"],
    ]
    in_turn = [fit_tiny(*overrides, workbench=workbench) for overrides in varied]
    assert num_loads()[2] == 2, "once, and again after all its weights were trained"
    assert in_turn == [fit_tiny(*overrides) for overrides in varied]
    assert in_turn[0] == in_turn[-1]
    assert len({metrics["loss"][-1] for metrics in in_turn}) == 4


def test_base_model_whose_weights_were_trained_is_dropped(workbench: Workbench, fit_tiny: Fit) -> None:
    fit_tiny("lora.use_lora=false", workbench=workbench)
    assert kept_model(workbench) is None


def test_gradient_checkpointing_leaves_nothing_behind(workbench: Workbench, fit_tiny: Fit) -> None:
    overrides = ["base_model.gradient_checkpointing=true"]
    first, second = (fit_tiny(*overrides, workbench=workbench) for _ in range(2))
    assert first == second == fit_tiny(*overrides)
    plain = fit_tiny(workbench=workbench)
    assert plain == fit_tiny()


def spoil_weight(model: Any) -> None:
    with torch.no_grad():
        model.base_model.model.model.embed_tokens.weight[0, 0] += 1


def spoil_buffer(model: Any) -> None:
    next(buffer for name, buffer in model.named_buffers() if "inv_freq" in name).mul_(2)


def spoil_hooks(model: Any) -> None:
    model.base_model.model.model.norm.register_forward_hook(lambda *_: None)


def spoil_config(model: Any) -> None:
    model.base_model.model.config.use_cache = False


def spoil_dtype(model: Any) -> None:
    model.to(torch.bfloat16)  # as `trainer.precision=bf16-true` does


@pytest.mark.parametrize("spoil", [spoil_dtype, spoil_weight, spoil_buffer, spoil_hooks, spoil_config])
@pytest.mark.slow
def test_every_trace_of_a_job_drops_the_base_model(
    spoil: Callable[[Any], None], workbench: Workbench, tiny_config: Callable[..., Any]
) -> None:
    config = tiny_config()
    with lend(workbench, config):
        pass
    untouched = kept_model(workbench)
    with lend(workbench, config) as model:
        assert model.base_model.model is untouched
        assert kept_model(workbench) is None, "one that is in use is not to be had"
        spoil(model)
    assert kept_model(workbench) is None


def test_base_model_of_a_failed_job_is_dropped(workbench: Workbench, tiny_config: Callable[..., Any]) -> None:
    config = tiny_config()
    with lend(workbench, config):
        pass
    bad = dataclasses.replace(config.lora, target_modules=["q_proj", "no_such_layer"])
    with pytest.raises(ValueError, match="no_such_layer"), lend(workbench, config, bad):
        pass
    assert kept_model(workbench) is None
    with pytest.raises(KeyboardInterrupt), lend(workbench, config):
        raise KeyboardInterrupt
    assert kept_model(workbench) is None


def test_a_single_job_frees_its_base_model(tiny_config: Callable[..., Any]) -> None:
    config = tiny_config()
    with Workbench(keeps_base_model=False) as workbench:
        with lend(workbench, config):
            pass
        assert kept_model(workbench) is None


@pytest.mark.slow
def test_each_thing_is_loaded_once_and_the_last_is_kept(
    workbench: Workbench, tiny_config: Callable[..., Any], num_loads: Callable[[], list[int]]
) -> None:
    def use(*overrides: str) -> tuple[Any, Any]:
        config = tiny_config(*overrides)
        found = load_data(config.data, workbench), load_vocabulary(config.base_model, {}, workbench)[1]
        with lend(workbench, config):
            return found

    first, again = use(), use("seed=7", "lora.lora_r=2", "optim.learning_rate=1", "prompt.max_length=100")
    assert num_loads() == [1, 1, 1]
    assert all(one is another for one, another in zip(first, again, strict=True))
    other_data = use("data.split_seed=9")[0]
    assert num_loads() == [2, 1, 1]
    assert [one.query_id for one in other_data.splits.test] != [one.query_id for one in first[0].splits.test]
    use("data.split_seed=9", "base_model.dtype=bfloat16")
    assert num_loads() == [2, 2, 2]
    use()
    assert num_loads() == [3, 3, 3], "only the last of each is kept"
    workbench.close()
    use()
    assert num_loads() == [4, 4, 4]


@pytest.mark.slow
def test_a_config_changed_in_place_is_another_one(workbench: Workbench, tiny_config: Callable[..., Any]) -> None:
    config = tiny_config().data
    before = load_data(config, workbench)
    config.split_seed = 9
    assert load_data(config, workbench) is not before


def test_a_process_has_one_shared_workbench() -> None:
    assert shared_workbench() is shared_workbench()
