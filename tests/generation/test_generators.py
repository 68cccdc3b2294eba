"""Generators: both backends on a tiny random Llama, vLLM for real. Two engines in turn serve the whole file."""

import contextlib
import dataclasses
import json
import logging
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from causal_lm_router.config import Backend, InferenceConfig, LoraConfig, TrainConfig
from causal_lm_router.config.compose import compose_config, conf_dir
from causal_lm_router.config.generation import ParseMode
from causal_lm_router.generation import vllm_engine, vllm_start
from causal_lm_router.generation.generated_text import decode_generated
from causal_lm_router.generation.generator import open_generator
from causal_lm_router.generation.transformers import TransformersGenerator
from causal_lm_router.generation.vllm import CPU_CACHE_BYTES, VllmGenerator
from causal_lm_router.generation.vllm_engine import VllmEngine
from causal_lm_router.models.adapter import apply_lora, load_trained, save_weights, vllm_serves
from causal_lm_router.models.base_model import load_base_model, load_tokenizer
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.prompting.parse import parse_generation
from causal_lm_router.routing import Generation
from tests.conftest import name_targets

pytestmark = pytest.mark.slow

EOS = 2
MAX_PROMPT_TOKENS = 300
MIN_GAP = 2e-4  # of logits; kernels, batches and backends differ by about 1e-6 in float32
# Names that contain one another, names with spaces, dots, apostrophes and letters beyond ASCII.
NAMES = ["gpt-4", "gpt-4o", "gpt-4o mini", "Qwen 2.5 (7B)", "what 's . up", "Größe-λ 模型", "modèle ?", "m</s>x"]


@dataclasses.dataclass(frozen=True)
class Base:
    """The tiny base model in a folder, with generation defaults beside it that nothing may follow."""

    config: TrainConfig
    path: str
    tokenizer: PreTrainedTokenizerBase

    def inference(self, **changes: Any) -> InferenceConfig:
        return dataclasses.replace(self.config.inference, **changes)

    def open_vllm(self, **changes: Any) -> VllmGenerator:
        inference, config = self.inference(backend=Backend.vllm, **changes), self.config
        lora, tokenizer = config.lora, self.tokenizer
        generator = open_generator(inference, config.base_model, lora, self.path, tokenizer, MAX_PROMPT_TOKENS)
        assert isinstance(generator, VllmGenerator)
        return generator

    def open_transformers(self, **changes: Any) -> TransformersGenerator:
        inference, config = self.inference(backend=Backend.transformers, **changes), self.config
        lora, tokenizer = config.lora, self.tokenizer
        generator = open_generator(inference, config.base_model, lora, self.path, tokenizer, MAX_PROMPT_TOKENS)
        assert isinstance(generator, TransformersGenerator)
        return generator

    def load_model(self) -> Any:
        return load_base_model(self.path, self.config.base_model).eval()  # type: ignore[no-untyped-call]

    def prompt(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids


@pytest.fixture(scope="module")
def base(tiny_base: Any, tiny_config: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory) -> Base:
    path = Path(shutil.copytree(tiny_base.path, tmp_path_factory.mktemp("generators") / "base"))
    defaults = {"repetition_penalty": 3.0, "do_sample": True, "top_k": 2, "eos_token_id": [EOS, 5, 6, 7, 8, 9, 10]}
    (path / "generation_config.json").write_text(json.dumps(defaults), encoding="utf-8")
    config = tiny_config("inference=vllm", "inference.temperature=0.0", "inference.max_new_tokens=12")
    return Base(config, str(path), load_tokenizer(str(path), config.base_model))


@pytest.fixture(scope="module")
def prompts(base: Base, adapters: list[Path], dora: Path, checkpoint: Path) -> list[list[int]]:
    """36 prompts of about 10 to 180 tokens, long and short mixed, to which no weights here have a near tie.

    So the greedy generations do not depend on how a processor rounds.
    """
    words = ["the", "of", "small", "large", "model", "what", "17", "9.5", "?", "- x", "in", "why", "Größe"]
    draw = random.Random(0)
    queries = [" ".join(draw.choices(words, k=1 + 19 * number % 60)) for number in range(80)]
    found = [base.prompt(f"Query: {query}\n\nBest LLM:") for query in queries]
    for folder in (None, *adapters, dora, checkpoint):
        model = load_trained(base.path, base.config.base_model, folder) if folder else base.load_model()
        found = [prompt for prompt in found if smallest_gap(model, prompt) > MIN_GAP]
    assert len(found) >= 36
    return found[:36]


@torch.inference_mode()
def smallest_gap(model: Any, prompt: list[int]) -> float:
    """The least difference of the logits of the two likeliest tokens over the steps of a greedy generation."""
    ids, gap = list(prompt), float("inf")
    while len(ids) < len(prompt) + 12 and ids[-1] != EOS:
        (first, second), (token, _) = model(torch.tensor([ids])).logits[0, -1].topk(2)
        gap = min(gap, float(first - second))
        ids.append(int(token))
    return gap


@pytest.fixture(scope="module")
def adapters(base: Base, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters whose random weights are large enough to change every answer."""
    return [write_adapter(base, tmp_path_factory.mktemp("adapters") / "adapter", seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def dora(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that vLLM does not serve."""
    return write_adapter(base, tmp_path_factory.mktemp("dora") / "adapter", 1, use_dora=True)


@pytest.fixture(scope="module")
def checkpoint(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full checkpoint: the base model with other weights in its first layer."""
    model = load_base_model(base.path, base.config.base_model)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for parameter in model.model.layers[0].parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("checkpoints") / "full"
    save_weights(model, base.tokenizer, folder)
    return folder


def write_adapter(base: Base, folder: Path, seed: int, **changes: Any) -> Path:
    lora = dataclasses.replace(base.config.lora, **changes)
    with torch.random.fork_rng():
        model = apply_lora(load_base_model(base.path, base.config.base_model), lora, seed)
        assert isinstance(model, PeftModel)
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("lora_A", "lora_B", "lora_embedding")):
                torch.nn.init.normal_(parameter, std=0.2)
    save_weights(model, base.tokenizer, folder)
    return folder


def process_state() -> dict[str, Any]:
    """What training in this process depends on."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        left, right = torch.randn(65, 257), torch.randn(257, 129)
        drawn = torch.nn.functional.dropout((left @ right).softmax(dim=-1)).numpy().tobytes()
    return {
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tobytes(),  # type: ignore[index,union-attr]
        "torch": torch.get_rng_state().numpy().tobytes(),
        "set_num_threads": torch.set_num_threads,
        "num_threads": torch.get_num_threads(),
        "num_interop_threads": torch.get_num_interop_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "mkldnn": (torch.backends.mkldnn.enabled, torch.backends.mkldnn.deterministic),
        "matmul": torch.get_float32_matmul_precision(),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "cores": os.sched_getaffinity(0),
        "settings": {
            name for name in os.environ if name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CONFIGURE_LOGGING")
        },
        "drawn": drawn,
    }


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture(scope="module")
def closed(base: Base, prompts: list[list[int]], adapters: list[Path], checkpoint: Path) -> SimpleNamespace:
    """What a first engine did before it was closed: it served adapters by LoRARequest, as on a GPU."""
    generator = base.open_vllm(engine_args={"enable_lora": True, "max_num_seqs": 7})
    seen = SimpleNamespace(generator=generator, before=process_state())
    generator.load_weights(None)
    seen.started, seen.is_joined = process_state(), torch.distributed.is_initialized()
    engine = generator._engine
    engine._is_enough = lambda arguments: True  # type: ignore[method-assign]
    seen.config = engine.llm.llm_engine.vllm_config
    seen.base = generator.generate(prompts)
    engine.on_gpu = True
    seen.served = []
    for adapter in (*adapters, adapters[0]):
        generator.load_weights(adapter)
        seen.served.append((engine._lora_request, generator.generate(prompts)))
    generator.load_weights(checkpoint)
    seen.full = generator.generate(prompts)
    generator.load_weights(adapters[1])
    seen.served_after_full = generator.generate(prompts)
    assert engine._folder is not None
    seen.folder, seen.open_mib = engine._folder, resident_mib()
    generator.close()
    seen.closed, seen.closed_mib = process_state(), resident_mib()
    seen.is_joined_after = torch.distributed.is_initialized()
    return seen


@pytest.fixture(scope="module")
def vllm(base: Base, closed: SimpleNamespace) -> Iterator[VllmGenerator]:
    """The engine of this file, greedy, started after the first one was closed. Tests load the weights they need."""
    generator = base.open_vllm()
    yield generator
    generator.close()


def assert_same(found: list[Generation], expected: list[Generation], tolerance: float = 1e-3) -> None:
    assert [dataclasses.replace(one, logprob=None) for one in found] == [
        dataclasses.replace(one, logprob=None) for one in expected
    ]
    assert [one.logprob for one in found] == pytest.approx([one.logprob for one in expected], abs=tolerance)


def texts(generations: list[Generation]) -> list[str]:
    return [generation.text for generation in generations]


def num_different(found: list[Generation], others: list[Generation]) -> int:
    return sum(one != other for one, other in zip(texts(found), texts(others), strict=True))


def change(patch: pytest.MonkeyPatch, generator: VllmGenerator | TransformersGenerator, **changes: Any) -> None:
    """Change inference settings of a running generator until the test ends."""
    patch.setattr(generator, "_inference", dataclasses.replace(generator._inference, **changes))


# Agreement of the two backends


@pytest.mark.parametrize("weights", ["base", "adapter", "full"])
def test_backends_agree_on_greedy_generations(
    weights: str, base: Base, vllm: VllmGenerator, prompts: list[list[int]], adapters: list[Path], checkpoint: Path
) -> None:
    folder = {"base": None, "adapter": adapters[0], "full": checkpoint}[weights]
    reference = base.open_transformers(batch_size=12)
    for generator in (vllm, reference):
        generator.load_weights(folder)
    found = vllm.generate(prompts)
    assert_same(found, reference.generate(prompts))
    assert len(set(texts(found))) > 20
    assert all(generation.logprob is not None and generation.logprob < -1 for generation in found)


def test_transformers_result_does_not_depend_on_batching(base: Base, prompts: list[list[int]]) -> None:
    alone, together = (base.open_transformers(batch_size=size) for size in (1, 8))
    assert_same(together.generate(prompts[:8]), alone.generate(prompts[:8]))


def test_stop_ids_end_what_begins_with_one_and_leave_the_others(base: Base, prompts: list[list[int]]) -> None:
    generator = base.open_transformers(batch_size=5)
    plain = generator.generate(prompts)
    first = [int(base.load_model()(torch.tensor([prompt])).logits[0, -1].argmax()) for prompt in prompts]
    # A token that several texts begin with and others do not.
    stop = max(set(first), key=first.count)
    found = generator.generate(prompts, stop_ids=[stop])
    begins = [token == stop for token in first]
    assert 1 < sum(begins) < len(begins)
    for generation, before, is_short in zip(found, plain, begins, strict=True):
        assert (generation.num_tokens == 1 and generation.finish_reason == "stop") is is_short
        assert before.text.startswith(generation.text)
    # Sampled ones take the long way, and end alike.
    generator.close()
    sampled = base.open_transformers(batch_size=5, temperature=1e-4).generate(prompts, stop_ids=[stop])
    assert_same(found, sampled)


def test_transformers_takes_a_tokenizer_whose_padding_is_eos(base: Base, prompts: list[list[int]]) -> None:
    reference = base.open_transformers().generate(prompts[:6])
    tokenizer = load_tokenizer(base.path, base.config.base_model)
    tokenizer.pad_token = tokenizer.eos_token
    generator = TransformersGenerator(base.inference(), base.config.base_model, base.path, tokenizer)
    assert_same(generator.generate(prompts[:6]), reference)


def test_generations_are_in_the_order_of_the_prompts(base: Base, vllm: VllmGenerator, prompts: list[list[int]]) -> None:
    vllm.load_weights(None)
    chosen = [prompts[index] for index in (23, 0, 17, 2, 11)]
    one_by_one = [generation for prompt in chosen for generation in vllm.generate([prompt])]
    assert len(set(texts(one_by_one))) == 5
    for generator in (vllm, base.open_transformers(batch_size=2)):
        assert_same(generator.generate(chosen), one_by_one)
        assert_same(generator.generate(chosen[::-1]), one_by_one[::-1])


def test_the_order_of_prompts_that_share_most_of_their_text_does_not_matter(base: Base, vllm: VllmGenerator) -> None:
    shared = "Query: " + "what the small model of 17 large ? in " * 4
    model = base.load_model()
    prompts = [base.prompt(f"{shared}{number}\n\nBest LLM:") for number in range(60)]
    chosen = [prompt for prompt in prompts if smallest_gap(model, prompt) > MIN_GAP][:12]
    assert len(chosen) == 12
    vllm.load_weights(None)
    for generator in (vllm, base.open_transformers(batch_size=4)):
        found = generator.generate(chosen)
        assert_same(generator.generate(chosen[::-1]), found[::-1])


def test_no_prompts_no_generations(base: Base, vllm: VllmGenerator) -> None:
    assert vllm.generate([]) == []
    assert base.open_transformers().generate([]) == []


# Switching weights


def test_adapters_in_turn_answer_differently_and_the_first_again_the_same(
    base: Base, vllm: VllmGenerator, prompts: list[list[int]], adapters: list[Path]
) -> None:
    answers = []
    for folder in (None, *adapters, adapters[0], None):
        vllm.load_weights(folder)
        answers.append(vllm.generate(prompts))
    bare, first, second, first_again, bare_again = answers
    assert num_different(first, second) == num_different(first, bare) == num_different(second, bare) == len(prompts)
    assert_same(first_again, first)
    assert_same(bare_again, bare)
    # Not only different, but those of the second adapter, although the prompts were in the prefix cache of the first.
    reference = base.open_transformers()
    reference.load_weights(adapters[1])
    assert_same(second, reference.generate(prompts))


def test_switching_leaves_no_merged_weights_behind(vllm: VllmGenerator, adapters: list[Path]) -> None:
    for adapter in adapters:
        vllm.load_weights(adapter)
    assert vllm._engine._folder is not None
    assert list((vllm._engine._folder / "weights").iterdir()) == []


def test_adapters_on_embedding_and_head_are_merged_too(
    base: Base, vllm: VllmGenerator, prompts: list[list[int]], tmp_path: Path
) -> None:
    """vLLM keeps a packed copy of the head, which every reload has to make anew."""
    reference = base.open_transformers()
    tokens = [list(range(100))] * 4
    found = []
    for seed in (1, 2):
        folder = write_adapter(base, tmp_path / str(seed), seed, target_modules=["q_proj", "embed_tokens", "lm_head"])
        for generator in (vllm, reference):
            generator.load_weights(folder)
        found.append(np.stack(vllm.next_logprobs(prompts[:4], tokens)))
        assert np.abs(found[-1] - np.stack(reference.next_logprobs(prompts[:4], tokens))).max() < 1e-3
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_failed_switch_is_not_mistaken_for_the_base_model(
    vllm: VllmGenerator, prompts: list[list[int]], adapters: list[Path], tmp_path: Path
) -> None:
    vllm.load_weights(None)
    bare = vllm.generate(prompts[:4])
    vllm.load_weights(adapters[0])
    with pytest.raises((ValueError, OSError, RuntimeError)):
        vllm.load_weights(tmp_path)
    vllm.load_weights(None)
    assert_same(vllm.generate(prompts[:4]), bare)


def test_stale_prefix_cache_is_no_silent_matter(vllm: VllmGenerator, checkpoint: Path, monkeypatch: Any) -> None:
    vllm.load_weights(None)
    monkeypatch.setattr(vllm._engine.llm, "reset_prefix_cache", lambda: False)
    with pytest.raises(AssertionError, match="prefix cache"):
        vllm.load_weights(checkpoint)


# Sampling


@pytest.mark.parametrize("backend", ["vllm", "transformers"])
def test_sampling_repeats_with_its_seed(
    backend: str, base: Base, vllm: VllmGenerator, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = vllm if backend == "vllm" else base.open_transformers()
    generator.load_weights(None)
    greedy = generator.generate(prompts[:8])
    state = torch.get_rng_state()
    change(monkeypatch, generator, temperature=1.0, seed=5)
    first = generator.generate(prompts[:8])
    change(monkeypatch, generator, temperature=1.0, seed=6)
    other_seed = generator.generate(prompts[:8])
    change(monkeypatch, generator, temperature=1.0, seed=5)
    assert texts(generator.generate(prompts[:8])) == texts(first)
    assert num_different(first, greedy) == num_different(first, other_seed) == 8
    same_prompt = generator.generate([prompts[0]] * 4)
    assert len(set(texts(same_prompt))) == 4
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("backend", ["vllm", "transformers"])
def test_max_new_tokens_bounds_and_length_is_the_reason(
    backend: str, base: Base, vllm: VllmGenerator, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = vllm if backend == "vllm" else base.open_transformers()
    generator.load_weights(None)
    change(monkeypatch, generator, max_new_tokens=3, sampling_args=bias(backend, EOS, -1e9))
    found = generator.generate(prompts[:8])
    assert {(generation.num_tokens, generation.finish_reason) for generation in found} == {(3, "length")}
    assert all(generation.text for generation in found)


@pytest.mark.parametrize("backend", ["vllm", "transformers"])
def test_eos_ends_the_generation_and_is_counted_but_not_shown(
    backend: str, base: Base, vllm: VllmGenerator, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = vllm if backend == "vllm" else base.open_transformers()
    generator.load_weights(None)
    change(monkeypatch, generator, sampling_args=bias(backend, EOS, 1e9))
    found = generator.generate(prompts[:8])
    assert {(one.text, one.num_tokens, one.finish_reason) for one in found} == {("", 1, "stop")}
    # The log-probability is the base model's own, without the bias: about that of one token in 320.
    assert all(one.logprob == pytest.approx(-5.8, abs=2) for one in found)


def bias(backend: str, token: int, value: float) -> dict[str, Any]:
    """Sampling arguments of a backend that add `value` to a token's logit."""
    if backend == "vllm":
        return {"logit_bias": {token: max(-100, min(100, value))}}
    return {"sequence_bias": [[[token], value]]}


@pytest.mark.parametrize("backend", ["vllm", "transformers"])
def test_unknown_sampling_argument_names_the_key(
    backend: str, base: Base, vllm: VllmGenerator, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = vllm if backend == "vllm" else base.open_transformers()
    change(monkeypatch, generator, sampling_args={"no_such_argument": 1})
    with pytest.raises(ValueError, match=r"inference\.sampling_args.*no_such_argument"):
        generator.generate(prompts[:1])


# The engine


@pytest.mark.parametrize("experiment", sorted(path.stem for path in Path(conf_dir(), "experiment").glob("*.yaml")))
def test_vllm_takes_the_sampling_of_every_preset(
    experiment: str, vllm: VllmGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    inference = compose_config([f"experiment={experiment}", "inference=vllm", "run_dir=x"]).inference
    change(monkeypatch, vllm, **{key: getattr(inference, key) for key in ("temperature", "top_p", "sampling_args")})
    vllm.load_weights(None)
    assert len(vllm.generate([[5, 6, 7]])) == 1


def test_a_text_ends_the_generation_and_is_not_part_of_it(
    vllm: VllmGenerator, prompts: list[list[int]], monkeypatch: Any
) -> None:
    vllm.load_weights(None)
    whole = vllm.generate(prompts[:8])
    stop = whole[0].text[len(whole[0].text) // 2 :][:3]
    change(monkeypatch, vllm, sampling_args={"stop": [stop, "no such text"]})
    cut = vllm.generate(prompts[:8])
    assert texts(cut) == [one.text.partition(stop)[0] for one in whole]
    assert (cut[0].finish_reason, cut[0].num_tokens < whole[0].num_tokens) == ("stop", True)


def test_a_prompt_that_is_computed_in_parts_is_sampled_alike(
    vllm: VllmGenerator, prompts: list[list[int]], monkeypatch: Any
) -> None:
    # vLLM cuts prompts where more tokens wait than a step takes, and takes back what it sampled before their end.
    vllm.load_weights(None)
    change(monkeypatch, vllm, temperature=1.0, seed=5)
    whole = vllm.generate(prompts)
    vllm._engine.llm.reset_prefix_cache()
    scheduler = vllm._engine.llm.llm_engine.engine_core.engine_core.scheduler
    monkeypatch.setattr(scheduler, "max_num_scheduled_tokens", 50)
    parts = vllm.generate(prompts)
    assert texts(parts) == texts(whole)
    assert len(set(texts(whole))) > 30


def test_shared_prompt_is_cached_in_blocks_of_32_tokens(base: Base, vllm: VllmGenerator, monkeypatch: Any) -> None:
    vllm.load_weights(None)
    vllm._engine.llm.reset_prefix_cache()
    num_cached: list[int] = []
    generate = vllm._engine.llm.generate

    def spy(*args: Any, **kwargs: Any) -> Any:
        outputs = generate(*args, **kwargs)
        num_cached.extend(output.num_cached_tokens for output in outputs)
        return outputs

    monkeypatch.setattr(vllm._engine.llm, "generate", spy)
    shared = list(range(20, 90))  # 70 tokens: two full blocks and a part
    for tail in ([100, 101], [102, 103, 104], [105]):
        vllm.generate([shared + tail])
    assert vllm._engine.llm.llm_engine.vllm_config.cache_config.block_size == 32
    assert num_cached == [0, 64, 64]


def test_engine_follows_the_settings(base: Base, vllm: VllmGenerator) -> None:
    config = vllm._engine.llm.llm_engine.vllm_config
    assert config.model_config.max_model_len == MAX_PROMPT_TOKENS + 12
    assert config.model_config.dtype == torch.float32
    assert config.model_config.enforce_eager
    assert config.cache_config.enable_prefix_caching
    assert config.parallel_config.tensor_parallel_size == 1
    assert config.lora_config is None


def test_engine_arguments_pass_through(closed: SimpleNamespace) -> None:
    assert closed.config.scheduler_config.max_num_seqs == 7
    assert closed.config.lora_config.max_lora_rank == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"no_such_argument": 1}, r"inference\.engine_args must hold arguments of vllm\.LLM, .*'no_such_argument'"),
        ({"max_num_seqs": 0}, r"inference\.engine_args\.max_num_seqs must be greater than or equal to 1, got 0"),
        ({"max_model_len": 100_000}, r"inference must have settings that vLLM starts with: .*max_model_len \(100000\)"),
        ({"cpu_offload_gb": -1}, r"inference\.engine_args\.cpu_offload_gb must be greater than or equal to 0, got -1"),
    ],
)
def test_engine_arguments_that_vllm_refuses(
    arguments: dict[str, Any], message: str, base: Base, prompts: list[list[int]]
) -> None:
    before = process_state()
    with contextlib.closing(base.open_vllm(engine_args=arguments)) as generator:
        with pytest.raises(ValueError, match=message) as caught:
            generator.generate(prompts[:1])
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 400
        assert process_state() == before


def test_starting_and_closing_leave_the_process_as_it_was(closed: SimpleNamespace) -> None:
    for state in (closed.started, closed.closed):
        assert [name for name, value in state.items() if value != closed.before[name]] == []
    assert closed.is_joined, "vLLM's process group"
    assert not closed.is_joined_after


def test_closing_gives_memory_and_files_back(closed: SimpleNamespace) -> None:
    cache_mib = CPU_CACHE_BYTES / 2**20
    assert closed.open_mib - closed.closed_mib > cache_mib / 2
    assert not closed.folder.exists()
    closed.generator.close()  # once more does no harm


def test_second_engine_of_a_process_answers_like_the_first(
    closed: SimpleNamespace, vllm: VllmGenerator, prompts: list[list[int]]
) -> None:
    vllm.load_weights(None)
    assert_same(vllm.generate(prompts), closed.base)


def test_nothing_is_compiled(vllm: VllmGenerator, prompts: list[list[int]]) -> None:
    from torch._dynamo.utils import counters

    vllm.generate(prompts[:2])
    assert counters["frames"] == {}, "compiling would need a C++ compiler"


@pytest.mark.parametrize("is_distributed", [False, True])
def test_engine_gets_its_own_process_beside_a_process_group(is_distributed: bool, monkeypatch: Any) -> None:
    import vllm

    started: dict[str, Any] = {}

    def start(**arguments: Any) -> str:
        started.update(arguments, mode=os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"])
        started["compiles"] = "TORCH_COMPILE_DISABLE" not in os.environ
        return "engine"

    monkeypatch.setattr(vllm, "LLM", start)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: is_distributed)
    assert vllm_start.new_llm({"enforce_eager": True}) == "engine"
    assert started == {"enforce_eager": True, "mode": str(int(is_distributed)), "compiles": not is_distributed}
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in os.environ
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    vllm_start.new_llm({})
    assert started["mode"] == "1", "the user's own setting wins"


ENGINE_PAGE = """Process EngineCore:
Traceback (most recent call last):
  File "core.py", line 1, in run
    raise ValueError("ValueError: of the code above")
ValueError: To serve at least one request, 4.0 GiB KV cache is needed, got 0.1 GiB. Try increasing `kv_cache_memory`.
Shutting down.
"""


@pytest.mark.parametrize("page", [ENGINE_PAGE, "terminate called after throwing an instance of std::bad_alloc\n"])
def test_what_an_engine_process_refuses_is_one_line(
    page: str, monkeypatch: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    import vllm

    def start(**_arguments: Any) -> None:
        os.write(2, page.encode())
        raise RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")

    monkeypatch.setattr(vllm, "LLM", start)
    monkeypatch.setattr(logging.root, "handlers", [])
    is_refusal = page is ENGINE_PAGE
    expected = "inference must have settings that vLLM starts with: To serve .* 0.1 GiB. Try increasing .*`.$"
    with pytest.raises(ValueError if is_refusal else RuntimeError, match=expected if is_refusal else "root cause"):
        vllm_start.new_llm({})
    # What is no refusal is shown whole.
    assert capfd.readouterr().err.endswith("" if is_refusal else page)


# One engine, several generators


ENGINE = {"model": "m", "dtype": "float32", "enable_lora": True, "max_lora_rank": 16, "max_model_len": 100}


@pytest.mark.parametrize(
    ("changes", "num_started"),
    [
        ({}, 1),
        ({"max_model_len": 99, "max_lora_rank": 8}, 1),
        ({"max_model_len": 101}, 2),
        ({"max_lora_rank": 32}, 2),
        ({"dtype": "bfloat16"}, 2),
        ({"model": "another", "max_model_len": 50}, 2),
        ({"max_num_seqs": 3}, 2),
        ({"enable_lora": False}, 2),
    ],
)
def test_running_engine_is_used_where_it_is_enough(changes: dict[str, Any], num_started: int, started: Any) -> None:
    engine = VllmEngine()
    engine.start(ENGINE)
    engine.start(ENGINE | changes)
    assert [state.is_running for _, state in started] == [False, True][-num_started:]
    assert started[-1][0] == (ENGINE if num_started == 1 else ENGINE | changes)
    engine.start(ENGINE | changes)
    assert len(started) == num_started


def test_engine_is_for_the_number_of_threads_it_was_started_with(started: Any) -> None:
    engine, num_threads = VllmEngine(), torch.get_num_threads()
    engine.start(ENGINE)
    try:
        torch.set_num_threads(num_threads + 1)
        engine.start(ENGINE)
    finally:
        torch.set_num_threads(num_threads)
    assert [state.is_running for _, state in started] == [False, True]


def sharing(base: Base, vllm: VllmGenerator, **changes: Any) -> VllmGenerator:
    """Another generator over the engine of the first."""
    inference, config = base.inference(backend=Backend.vllm, **changes), base.config
    arguments = (inference, config.base_model, config.lora, base.path, base.tokenizer, MAX_PROMPT_TOKENS - 40)
    generator = open_generator(*arguments, engine=vllm._engine)
    assert isinstance(generator, VllmGenerator)
    return generator


def test_generators_of_one_engine_never_answer_for_each_other(
    base: Base, vllm: VllmGenerator, prompts: list[list[int]], adapters: list[Path]
) -> None:
    few = prompts[:8]
    vllm.load_weights(None)
    bare = vllm.generate(few)
    vllm.load_weights(adapters[0])
    first, llm = vllm.generate(few), vllm._engine.llm
    other = sharing(base, vllm, max_new_tokens=3, temperature=0.0)
    assert [generation.num_tokens for generation in other.generate(few)] == [3] * 8
    other = sharing(base, vllm)
    assert_same(other.generate(few), bare)  # it has loaded nothing, so it has the base model
    other.load_weights(adapters[1])
    assert num_different(other.generate(few), first) == 8
    other.close()
    assert_same(vllm.generate(few), first)
    assert vllm._engine.llm is llm


def test_same_adapter_is_not_merged_again_but_its_cache_is_dropped(
    vllm: VllmGenerator, prompts: list[list[int]], adapters: list[Path], tmp_path: Path, monkeypatch: Any
) -> None:
    vllm.load_weights(adapters[0])
    first, llm = vllm.generate(prompts[:4]), vllm._engine.llm
    resets: list[bool] = []
    reset = llm.reset_prefix_cache
    with monkeypatch.context() as patch:
        patch.setattr(llm, "collective_rpc", lambda *args, **kwargs: pytest.fail("loaded again"))
        patch.setattr(llm, "reset_prefix_cache", lambda: resets.append(True) or reset())
        vllm.load_weights(Path(shutil.copytree(adapters[0], tmp_path / "copy")))
        assert_same(vllm.generate(prompts[:4]), first)
        assert resets == [True]
    # What counts is the content, not the folder.
    shutil.copytree(adapters[1], tmp_path / "copy", dirs_exist_ok=True)
    vllm.load_weights(tmp_path / "copy")
    assert num_different(vllm.generate(prompts[:4]), first) == 4


def test_engine_is_closed_where_a_generation_is_broken_off(
    vllm: VllmGenerator, prompts: list[list[int]], adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    vllm.load_weights(adapters[0])
    whole = vllm.generate(prompts[:6])

    def break_off() -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(vllm._engine.llm.llm_engine, "step", break_off)  # the requests are in the engine by then
        vllm.generate(prompts[6:12])
    assert vllm._engine.llm is None
    # No answer to the earlier prompts, and those of the weights that were loaded last.
    assert_same(vllm.generate(prompts[:6]), whole)


# What only a GPU uses, as far as it can be tried without one


def test_adapters_served_by_lora_request_answer_like_merged_ones(
    closed: SimpleNamespace, vllm: VllmGenerator, prompts: list[list[int]], adapters: list[Path], checkpoint: Path
) -> None:
    (first_request, first), (second_request, second), (again_request, again) = closed.served
    assert first_request == again_request
    assert first_request.lora_int_id == again_request.lora_int_id != second_request.lora_int_id
    assert_same(again, first)
    assert num_different(first, second) == len(prompts)
    assert_same(closed.served_after_full, second)
    for folder, served in ((adapters[0], first), (adapters[1], second), (checkpoint, closed.full)):
        vllm.load_weights(folder)
        assert_same(vllm.generate(prompts), served)


def test_request_follows_the_adapters_content(adapters: list[Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(adapters[0], tmp_path / "elsewhere"))
    weights = "adapter_model.safetensors"
    engine = VllmEngine()
    requests = []
    for folder in (adapters[0], copy, adapters[1]):
        requests.append(engine._request(folder))
        assert 1 <= requests[-1].lora_int_id < 2**31
        served = Path(requests[-1].lora_path)
        assert (served / weights).read_bytes() == (folder / weights).read_bytes()
        assert list(served.parent.iterdir()) == [served], "earlier adapters would fill the disk"
    first, same, other = requests
    assert first == same
    assert (first.lora_int_id, first.lora_path) == (same.lora_int_id, same.lora_path)
    # The same folder with new weights in it is another adapter.
    shutil.copyfile(adapters[1] / weights, copy / weights)
    changed = engine._request(copy)
    for one, another in ((first, other), (first, changed)):
        assert one.lora_name != another.lora_name
        assert one.lora_int_id != another.lora_int_id
        assert one.lora_path != another.lora_path
    engine.close()
    assert not Path(changed.lora_path).exists()


def test_vllm_serves_plain_lora_only(base: Base, adapters: list[Path], dora: Path, tmp_path: Path) -> None:
    assert vllm_serves(adapters[0])
    assert vllm_serves(write_adapter(base, tmp_path / "rslora", 1, use_rslora=True))
    assert not vllm_serves(dora)


def test_dora_is_merged_for_vllm(base: Base, vllm: VllmGenerator, prompts: list[list[int]], dora: Path) -> None:
    reference = base.open_transformers()
    for generator in (vllm, reference):
        generator.load_weights(dora)
    assert_same(vllm.generate(prompts[:8]), reference.generate(prompts[:8]))


def test_temporary_files_of_vllm_go_with_its_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Path] = []

    def start(arguments: dict[str, Any]) -> SimpleNamespace:
        found.append(Path(tempfile.mkstemp(prefix="vllm_dist_")[1]))
        assert os.environ["TMPDIR"] == str(found[0].parent)
        core = SimpleNamespace(shutdown=lambda: None)
        return SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core), collective_rpc=lambda method: None)

    monkeypatch.setattr(vllm_engine, "new_llm", start)
    before, engine = tempfile.gettempdir(), VllmEngine()
    engine.on_gpu = False
    engine.start({})
    assert tempfile.gettempdir() == before
    assert found[0].parent.parent == Path(before)
    engine.close()
    assert not found[0].parent.exists()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], SimpleNamespace]]:
    """Arguments of the engines started, in order, and whether each still runs; none really is started."""
    found: list[tuple[dict[str, Any], SimpleNamespace]] = []

    def start(arguments: dict[str, Any]) -> SimpleNamespace:
        state = SimpleNamespace(is_running=True)
        core = SimpleNamespace(shutdown=lambda: setattr(state, "is_running", False))
        found.append((arguments, state))
        return SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core), collective_rpc=lambda method: None)

    monkeypatch.setattr(vllm_engine, "new_llm", start)
    return found


@pytest.fixture
def gpu_arguments(base: Base, started: list[Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Function that returns the engine's arguments on a GPU whose half is free, for changes of the LoRA settings."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (40 << 30, 80 << 30))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def arguments(engine_args: dict[str, Any], **changes: Any) -> dict[str, Any]:
        inference = base.inference(engine_args=engine_args, tensor_parallel_size=2)
        lora: LoraConfig = dataclasses.replace(base.config.lora, **changes)
        generator = VllmGenerator(inference, base.config.base_model, lora, base.path, base.tokenizer, 100)
        generator._engine.start(generator._engine_args())
        found: dict[str, Any] = started[-1][0]
        return found

    return arguments


def test_engine_arguments_on_a_gpu(gpu_arguments: Callable[..., dict[str, Any]]) -> None:
    found = gpu_arguments({"max_num_seqs": 9}, lora_r=17)
    assert found["gpu_memory_utilization"] == pytest.approx(0.45), "nine tenths of what the trainer leaves"
    expected = {"enable_sleep_mode": True, "tensor_parallel_size": 2, "max_num_seqs": 9, "max_model_len": 112}
    assert found.items() >= expected.items()
    assert found.items() >= {"enable_lora": True, "max_lora_rank": 32}.items()
    assert not found.keys() & {"block_size", "enforce_eager", "kv_cache_memory_bytes"}
    assert gpu_arguments({"gpu_memory_utilization": 0.8})["gpu_memory_utilization"] == 0.8


@pytest.mark.parametrize("changes", [{"use_lora": False}, {"use_dora": True}, {"lora_r": 513}])
def test_engine_without_lora_where_adapters_are_merged(
    changes: dict[str, Any], gpu_arguments: Callable[..., dict[str, Any]]
) -> None:
    assert "enable_lora" not in gpu_arguments({}, **changes)


def test_engine_sleeps_on_a_gpu_and_wakes_for_the_next_use(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    llm = SimpleNamespace(
        sleep=lambda level: calls.append(f"sleep {level}"),
        wake_up=lambda: calls.append("wake"),
        reset_prefix_cache=lambda: True,
        llm_engine=SimpleNamespace(vllm_config=SimpleNamespace(lora_config=None)),
    )
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty"))
    generator = base.open_vllm()
    engine = generator._engine
    generator.sleep()
    engine.llm = llm
    generator.sleep()
    assert calls == [], "nothing to give back before the start, nor on a CPU"
    engine.on_gpu = True
    engine._arguments, engine._num_threads = generator._engine_args(), torch.get_num_threads()
    engine._weights = "base"
    generator.sleep()
    generator.load_weights(None)
    generator.load_weights(None)
    assert calls == ["sleep 1", "empty", "wake"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_engine_serves_adapters_and_sleeps(base: Base, prompts: list[list[int]], adapters: list[Path]) -> None:
    with contextlib.closing(base.open_vllm(engine_args={"gpu_memory_utilization": 0.3})) as generator:
        answers = []
        for folder in (None, *adapters, adapters[0], None):
            generator.load_weights(folder)
            answers.append(generator.generate(prompts))
            awake = torch.cuda.mem_get_info()[0]
            generator.sleep()
            assert torch.cuda.mem_get_info()[0] - awake > 0.1 * torch.cuda.mem_get_info()[1]
        bare, first, second, first_again, bare_again = answers
        assert num_different(first, second) == num_different(first, bare) == len(prompts)
        assert texts(first_again) == texts(first)
        assert texts(bare_again) == texts(bare)


# From target ids back to names


def test_every_name_survives_tokens_and_parse(base: Base) -> None:
    tokenizer = load_tokenizer(base.path, base.config.base_model)
    # Some tokenizers ask for this clean-up, which would take spaces out of names.
    tokenizer.clean_up_tokenization_spaces = True
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    encoder = Encoder(tokenizer, base.config.prompt, name_targets(NAMES, base.config.prompt))
    for name in NAMES:
        ids = encoder.target_ids[name]
        assert ids[-1] == EOS
        assert EOS not in ids[:-1], "the end token's text inside a name is plain text"
        generation = Generation(decode_generated(tokenizer, ids), "stop", len(ids))
        assert parse_generation(generation, NAMES, ParseMode.strict, 85.0).candidate == name
