"""The model card beside a run's weights, and the name of the base model in the adapter's settings."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from causal_lm_router.config import BaseModelOrigin
from causal_lm_router.runs.model_card import hub_name, name_base_model


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


def test_an_adapter_names_its_base_model_as_the_hub_does(tiny_config: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"base_model_name_or_path": "/cache/base_models/x", "r": 16}))
    name_base_model(tmp_path, tiny_config().base_model)
    assert json.loads(path.read_text())["base_model_name_or_path"] == "/cache/base_models/x"
    name_base_model(tmp_path, tiny_config("base_model=smollm2_135m").base_model)
    named = {"base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct", "r": 16}
    assert json.loads(path.read_text()) == named
