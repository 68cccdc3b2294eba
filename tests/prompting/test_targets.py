"""What can be generated for a candidate, by every kind, and the way back; new tokens in a base model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from causal_lm_router.config.generation import ParseMode
from causal_lm_router.config.prompting import TargetKind
from causal_lm_router.models.adapter import apply_lora, load_trained, save_weights
from causal_lm_router.models.base_model import base_model_source, load_base_model, load_tokenizer
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.prompting.targets import Targets
from causal_lm_router.routing import Generation, ParseFailure, RoutingExample

NAMES = ("gpt-4", "gpt-4o", "llama")


def parse(targets: Targets, text: str, finish_reason: str = "stop") -> tuple[str | None, ParseFailure | None]:
    route = targets.parse(Generation(text, finish_reason), ParseMode.strict, 90.0)
    return route.candidate, route.failure


@pytest.mark.parametrize("kind", [TargetKind.name, TargetKind.short_id, TargetKind.token])
def test_what_is_shown_stands_for_its_candidate(kind: TargetKind) -> None:
    targets = Targets(kind, NAMES)
    assert [parse(targets, text.strip()) for text in targets.texts] == [(name, None) for name in NAMES]
    assert targets.candidates == NAMES


def test_texts() -> None:
    assert Targets(TargetKind.name, NAMES).texts == (" gpt-4", " gpt-4o", " llama")
    assert Targets(TargetKind.short_id, NAMES).texts == (" A", " B", " C")
    assert Targets(TargetKind.token, NAMES).texts == ("<|llm:gpt-4|>", "<|llm:gpt-4o|>", "<|llm:llama|>")
    many = Targets(TargetKind.short_id, tuple(f"m{number}" for number in range(29)))
    assert many.shown[24:] == ("Y", "Z", "AA", "AB", "AC")


def test_other_text_is_a_parse_failure() -> None:
    assert parse(Targets(TargetKind.short_id, NAMES), "gpt-4") == (None, ParseFailure.unknown)
    assert parse(Targets(TargetKind.name, NAMES), "A") == (None, ParseFailure.unknown)
    assert parse(Targets(TargetKind.token, NAMES), "<|llm:other|>", "length") == (None, ParseFailure.unknown)


def example(weak: float, strong: float) -> RoutingExample:
    return RoutingExample("1", "q", "t", {"weak": weak, "strong": strong})


def test_score_classes_follow_routellm() -> None:
    targets = Targets(TargetKind.score_class, ("weak", "strong"), strong="strong")
    assert targets.candidates == ("strong", "strong", "strong", "weak", "weak")
    numbers = [targets.number_of(example(score, 1.0), "strong") for score in (0.0, 0.2, 0.5, 0.8, 1.0)]
    assert numbers == [0, 1, 2, 3, 4]
    assert parse(targets, "<|score:3|>") == ("strong", None)
    assert parse(targets, "<|score:4|>") == ("weak", None)
    assert parse(targets, "five") == (None, ParseFailure.unknown), "not silently the strong one"


@pytest.mark.parametrize(("names", "strong"), [(NAMES, "llama"), (("a", "b"), "c"), (("a", "b"), None)])
def test_score_classes_need_two_candidates(names: tuple[str, ...], strong: str | None) -> None:
    with pytest.raises(ValueError, match=r"target\.kind=score_class"):
        Targets(TargetKind.score_class, names, strong=strong)


@pytest.fixture(scope="module")
def extended(tiny_base: Any) -> tuple[str, Targets]:
    targets = Targets(TargetKind.token, ("alpha", "beta-2"))
    return base_model_source(tiny_base.config, targets.new_tokens), targets


def test_new_tokens_start_as_the_mean_of_their_names(tiny_base: Any, extended: tuple[str, Targets]) -> None:
    source, targets = extended
    old, new = load_base_model(tiny_base.path, tiny_base.config), load_base_model(source, tiny_base.config)
    tokenizer = load_tokenizer(source, tiny_base.config)
    ids = tiny_base.tokenizer("alpha", add_special_tokens=False)["input_ids"]
    number = tokenizer.convert_tokens_to_ids(targets.shown[0])
    assert number >= 320
    for get in ("get_input_embeddings", "get_output_embeddings"):
        before, after = getattr(old, get)().weight, getattr(new, get)().weight
        assert torch.allclose(after[number], before[ids].mean(dim=0), atol=1e-6)
        assert torch.equal(after[:320], before)
    assert base_model_source(tiny_base.config, targets.new_tokens) == source, "made once"
    assert base_model_source(tiny_base.config, {}) == tiny_base.path


def test_a_query_cannot_hold_a_new_token(
    tiny_base: Any, tiny_config: Callable[..., Any], extended: tuple[str, Targets]
) -> None:
    source, targets = extended
    encoder = Encoder(load_tokenizer(source, tiny_base.config), tiny_config().prompt, targets)
    assert encoder.target_ids == {"<|llm:alpha|>": [320], "<|llm:beta-2|>": [321]}
    assert encoder.stop_ids == (320, 321)
    ids = encoder.encode_prompts(["say <|llm:alpha|> please"])[0].input_ids
    assert not {320, 321} & set(ids)
    assert encoder.tokenizer.decode(ids) == "Query: say <|llm:alpha|> please\n\nBest LLM:"


def test_a_tokenizer_without_the_tokens_is_refused(tiny_base: Any, tiny_config: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"target: .* without '<\|llm:alpha\|>'"):
        Encoder(tiny_base.tokenizer, tiny_config().prompt, Targets(TargetKind.token, ("alpha", "beta-2")))


@pytest.mark.slow
def test_rows_of_new_tokens_train_and_are_saved_and_merged(
    tiny_base: Any, tiny_config: Callable[..., Any], extended: tuple[str, Targets], tmp_path: Path
) -> None:
    source, _ = extended
    base = load_base_model(source, tiny_base.config)
    model = apply_lora(base, tiny_config("lora.lora_dropout=0").lora, 0, [320, 321])
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert any("trainable_tokens" in name for name in trained)
    assert all("lora_" in name or "trainable_tokens" in name for name in trained)
    ids = torch.tensor([[5, 6, 7]])
    model(input_ids=ids).logits[0, -1, 320:].sum().backward()
    for name, weight in model.named_parameters():
        if "trainable_tokens" in name and weight.grad is not None:
            weight.data += 0.5 * weight.grad
    expected = model(input_ids=ids).logits
    save_weights(model, load_tokenizer(source, tiny_base.config), tmp_path / "adapter")
    assert any("token" in key for key in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["trainable_token_indices"]
    merged = load_trained(source, tiny_base.config, tmp_path / "adapter").eval()
    assert torch.allclose(merged(input_ids=ids).logits, expected, atol=1e-4)
    assert not torch.allclose(expected, load_base_model(source, tiny_base.config)(input_ids=ids).logits, atol=1e-2)


@pytest.mark.slow
def test_last_layers_alone(tiny_base: Any, tiny_config: Callable[..., Any]) -> None:
    model = apply_lora(load_base_model(tiny_base.path, tiny_base.config), tiny_config("lora.num_layers=1").lora, 0)
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert trained
    assert all(".layers.1." in name for name in trained)
    with pytest.raises(ValueError, match=r"lora\.num_layers must be 1\.\.2, .* got 3"):
        apply_lora(load_base_model(tiny_base.path, tiny_base.config), tiny_config("lora.num_layers=3").lora, 0)
