"""The model card beside a run's weights, and the name of the base model in the adapter's settings."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from causal_lm_router.config import BaseModelOrigin
from causal_lm_router.models.hub import hub_name
from causal_lm_router.runs.train_run import train_router


@pytest.mark.slow
def test_the_card_of_a_run(smoke_run: Path) -> None:
    card = (smoke_run / "adapter" / "README.md").read_text(encoding="utf-8")
    report = json.loads((smoke_run / "report.json").read_text(encoding="utf-8"))
    router = json.loads((smoke_run / "router.json").read_text(encoding="utf-8"))
    _, front_matter, body = card.split("---\n", 2)
    facts = yaml.safe_load(front_matter)
    assert facts["library_name"] == "peft"
    assert "llm-routing" in facts["tags"]
    assert "base_model" not in facts, "the hub has no such base model"
    for candidate in router["pool"]:
        assert f"| {candidate['name']} | {candidate['input_price']:g} |" in body.replace("\\", "")
    assert "Query: {query}\n\nBest LLM:" in body
    assert f"{report['num_train']} queries to train on" in body
    oracle = report["references"]["oracle"]["mean_score"]
    assert f"{oracle['value']:.3f} [{oracle['low']:.3f}, {oracle['high']:.3f}]" in body
    for way in ("CausalLMRouter.from_run", "PeftModel.from_pretrained", "LoRARequest"):
        assert way in body
    assert str(smoke_run) not in card
    assert "/base_models/" not in card


@pytest.mark.slow
def test_the_name_on_the_hub(tiny_config: Callable[..., Any], tmp_path: Path) -> None:
    packaged = tiny_config("base_model=smollm2_135m").base_model
    assert hub_name(packaged) == "HuggingFaceTB/SmolLM2-135M-Instruct"
    on_hub = tiny_config("base_model=qwen2_5_0_5b").base_model
    assert hub_name(on_hub) == "Qwen/Qwen2.5-0.5B"
    assert hub_name(tiny_config().base_model) is None
    local = dataclasses.replace(on_hub, origin=BaseModelOrigin.hub, name=str(tmp_path))
    assert hub_name(local) is None


@pytest.mark.parametrize("overrides", [(), ("target=token", "objective=multi_positive", "decoding=scored")])
@pytest.mark.slow
def test_plain_peft_loads_the_adapter_onto_the_base_model_of_the_hub(
    overrides: tuple[str, ...],
    tiny_base: Any,
    tiny_config: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The card's own code, on a machine that has nothing but the adapter; a folder stands for the hub's repository."""
    formats = ("trainer.precision=32-true", "base_model.dtype=float32", "inference.dtype=float32")
    train_router(tiny_config(f"run_dir={tmp_path / 'run'}", "base_model.hub_name=org/tiny", *formats, *overrides))
    (tmp_path / "elsewhere" / "path" / "to").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.copytree(tiny_base.path, "org/tiny")
    shutil.copytree(tmp_path / "run" / "adapter", "path/to/adapter")
    settings = Path("path/to/adapter/adapter_config.json").read_text(encoding="utf-8")
    assert json.loads(settings)["base_model_name_or_path"] == "org/tiny"
    assert str(tmp_path) not in settings
    card = Path("path/to/adapter/README.md").read_text(encoding="utf-8")
    loaded: dict[str, Any] = {}
    exec(card.partition("With PEFT:\n\n```python\n")[2].partition("\n```")[0], loaded)

    ids = torch.tensor([loaded["tokenizer"]("Query: What is 17 times 23?\n\nBest LLM:")["input_ids"]])
    with torch.inference_mode():
        found = loaded["model"](input_ids=ids).logits
        expected = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "merged")(input_ids=ids).logits
        bare = AutoModelForCausalLM.from_pretrained("org/tiny")(input_ids=ids).logits
    assert found.shape == expected.shape
    assert (found - expected).norm() < 1e-4 * expected.norm()
    assert (found[..., : bare.shape[-1]] - bare).norm() > 1e-3 * bare.norm(), "the adapter does something"
