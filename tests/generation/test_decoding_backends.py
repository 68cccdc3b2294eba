"""Constrained generations, the walk and likelihoods on both backends, against plain forward passes."""

import dataclasses
import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from causal_lm_router.config import Backend, TrainConfig
from causal_lm_router.generation.generated_text import make_constrained_generation
from causal_lm_router.generation.generator import Generator, open_generator
from causal_lm_router.generation.trie_walks import greedy_search
from causal_lm_router.models.base_model import load_base_model, load_tokenizer
from causal_lm_router.prompting.token_trie import TokenTrie, cut_when_decided, make_trie

pytestmark = pytest.mark.slow

BOS, EOS = 1, 2
MAX_PROMPT_TOKENS = 120
MIN_GAP = 1e-4  # of log-probabilities; kernels, batches and backends differ by about 1e-6 in float32
NAMES = ["gpt-4", "gpt-4o", "gpt-4-turbo", "llama-3-8b", "llama-3-8b-instruct", "Größe"]
BACKENDS = ["vllm", "transformers"]


@dataclasses.dataclass(frozen=True)
class Rig:
    """A base model under both backends, and the model itself for reference values."""

    model: Any
    tokenizer: Any
    vllm: Any
    transformers: Any

    def generator(self, backend: str) -> Generator:
        found: Generator = getattr(self, backend)
        return found

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def names_trie(self, *further: list[int]) -> TokenTrie:
        return make_trie([*([*self.ids(f" {name}"), EOS] for name in NAMES), *further])

    @torch.inference_mode()
    def next_logprobs(self, prefix: Sequence[int]) -> torch.Tensor:
        found: torch.Tensor = self.model(torch.tensor([list(prefix)])).logits[0, -1].float().log_softmax(dim=-1)
        return found

    @torch.inference_mode()
    def sequence_logprob(self, prompt: Sequence[int], sequence: Sequence[int]) -> float:
        ids = torch.tensor([*prompt, *sequence])
        logprobs = self.model(ids[None]).logits[0].float().log_softmax(dim=-1)[len(prompt) - 1 : -1]
        return float(logprobs.gather(1, ids[len(prompt) :, None]).sum())

    def sequence_logprobs(self, prompts: Sequence[Sequence[int]], trie: TokenTrie) -> NDArray[np.float64]:
        return np.array([[self.sequence_logprob(prompt, ids) for ids in trie.sequences] for prompt in prompts])

    def greedy(
        self, prompt: Sequence[int], sequences: Sequence[tuple[int, ...]]
    ) -> tuple[tuple[int, ...], float, float]:
        """The sequence that greedy decoding among these reaches, its log-probability among them, and the least gap.

        The gap is the difference of the log-probabilities of the two likeliest tokens in one step.
        """
        reached, logprob, gap = [], 0.0, float("inf")
        while tuple(reached) not in sequences:
            depth = len(reached)
            allowed = sorted({ids[depth] for ids in sequences if list(ids[:depth]) == reached and len(ids) > depth})
            values = self.next_logprobs([*prompt, *reached])[allowed].log_softmax(dim=-1)
            logprob += float(values.max())
            if len(allowed) > 1:
                best, second = values.topk(2).values
                gap = min(gap, float(best - second))
            reached.append(allowed[int(values.argmax())])
        return tuple(reached), logprob, gap


def open_rig(config: TrainConfig, path: str) -> Rig:
    tokenizer = load_tokenizer(path, config.base_model)
    inference = dataclasses.replace(config.inference, max_new_tokens=24)

    def opened(backend: Backend) -> Generator:
        settings = dataclasses.replace(inference, backend=backend)
        return open_generator(settings, config.base_model, config.lora, path, tokenizer, MAX_PROMPT_TOKENS)

    model = load_base_model(path, config.base_model).eval()  # type: ignore[no-untyped-call]
    return Rig(model, tokenizer, opened(Backend.vllm), opened(Backend.transformers))


@pytest.fixture(scope="module")
def rig(
    tiny_base: Any, tiny_config: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """The tiny base model, beside which a list of further end tokens stands that nothing may follow."""
    path = Path(shutil.copytree(tiny_base.path, tmp_path_factory.mktemp("decoding") / "base"))
    ends = {"eos_token_id": [EOS, *range(100, 320)]}
    (path / "generation_config.json").write_text(json.dumps(ends), encoding="utf-8")
    found = open_rig(tiny_config("inference=vllm", "inference.batch_size=7", "inference.temperature=0.0"), str(path))
    yield found
    found.vllm.close()


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """20 prompts of 1 to 115 tokens, long and short mixed; some share their beginning."""
    draw = random.Random(0)
    shared = draw.choices(range(3, 320), k=40)
    return [shared[: number % 2 * 40] + draw.choices(range(3, 320), k=1 + 31 * number % 75) for number in range(20)]


def change(patch: pytest.MonkeyPatch, generator: Any, **changes: Any) -> None:
    patch.setattr(generator, "_inference", dataclasses.replace(generator._inference, **changes))


def random_pools(num_pools: int) -> list[TokenTrie]:
    """Pools of like shape with much in common: in each one name begins two others, one token stands alone."""
    draw = random.Random(1)
    pools = []
    for _ in range(num_pools):
        a, b, c, d, e, f = draw.sample(range(3, 320), k=6)
        pools.append(make_trie([(a, b, EOS), (a, b, c, EOS), (a, b, c, d, EOS), (e, a, EOS), (e, b, EOS), (f,)]))
    return pools


# Likelihoods


@pytest.mark.parametrize("backend", BACKENDS)
def test_sequence_logprobs_are_those_of_plain_forward_passes(backend: str, rig: Rig, prompts: list[list[int]]) -> None:
    trie = rig.names_trie([300], [3])
    found = rig.generator(backend).sequence_logprobs(prompts, trie)
    assert found.shape == (len(prompts), len(NAMES) + 2)
    assert found.dtype == np.float64
    assert np.abs(found - rig.sequence_logprobs(prompts, trie)).max() < 1e-4


def test_sequence_logprobs_by_node_as_on_a_gpu(
    rig: Rig, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trie = rig.names_trie([300])
    monkeypatch.setattr(rig.vllm._engine, "can_pack", lambda: False)
    found = rig.vllm.sequence_logprobs(prompts[:6], trie)
    assert np.abs(found - rig.sequence_logprobs(prompts[:6], trie)).max() < 1e-4


def test_vllm_computes_a_batch_with_all_its_sequences_at_once(
    rig: Rig, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.vllm.load_weights(None)
    engine, before = rig.vllm._engine, rig.vllm.generate(prompts[:2])
    calls: list[str] = []
    call = engine.llm.collective_rpc

    def spy(method: str, **arguments: Any) -> Any:
        calls.append(method)
        return call(method, **arguments)

    monkeypatch.setattr(engine.llm, "collective_rpc", spy)
    monkeypatch.setattr(engine.llm, "generate", None)
    rig.vllm.sequence_logprobs(prompts, rig.names_trie())
    assert calls == ["can_pack"] + 3 * ["target_logprobs"], "20 prompts in batches of 7"
    monkeypatch.undo()
    assert rig.vllm.generate(prompts[:2]) == before, "requests find their own attention and cache again"


@pytest.mark.parametrize("backend", BACKENDS)
def test_next_logprobs_of_ragged_prefixes_and_tokens(backend: str, rig: Rig, prompts: list[list[int]]) -> None:
    draw = random.Random(2)
    num_tokens = [1, 0, 128, 129, 320, 3, 2]  # vLLM takes 128 with a request
    asked = [draw.sample(range(320), k=number) for number in num_tokens]
    prefixes = prompts[: len(asked)]
    found = rig.generator(backend).next_logprobs(prefixes, asked)
    assert [len(row) for row in found] == num_tokens
    assert np.exp(found[4]).sum() == pytest.approx(1, abs=1e-5), "over the whole vocabulary, whatever was asked"
    for row, prefix, tokens in zip(found, prefixes, asked, strict=True):
        assert row.dtype == np.float64
        assert row == pytest.approx(rig.next_logprobs(prefix)[tokens].numpy(), abs=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sampling_settings_do_not_count(
    backend: str, rig: Rig, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, trie, few = rig.generator(backend), random_pools(1)[0], prompts[:4]
    expected = generator.generate_constrained(few, trie), generator.sequence_logprobs(few, trie)
    change(monkeypatch, generator, temperature=1.5, top_p=0.5, sampling_args=bias(backend, 300, 9.0))
    again = generator.generate_constrained(few, trie)
    assert [one.text for one in again] == [one.text for one in expected[0]]
    assert [one.logprob for one in again] == pytest.approx([one.logprob for one in expected[0]], abs=1e-4)
    assert np.abs(generator.sequence_logprobs(few, trie) - expected[1]).max() < 1e-5
    logprobs = generator.next_logprobs([few[0]], [[300]])[0]
    assert logprobs == pytest.approx(rig.next_logprobs(few[0])[[300]].numpy(), abs=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_prompts(backend: str, rig: Rig) -> None:
    generator, trie = rig.generator(backend), random_pools(1)[0]
    assert generator.generate_constrained([], trie) == []
    assert generator.next_logprobs([], []) == []
    assert generator.sequence_logprobs([], trie).shape == (0, 6)
    assert greedy_search(generator.next_logprobs, [], trie) == []


# Constrained generations and the walk


@pytest.mark.parametrize("backend", BACKENDS)
def test_constrained_and_walk_are_greedy_among_the_sequences(backend: str, rig: Rig, prompts: list[list[int]]) -> None:
    generator, few = rig.generator(backend), prompts[:8]
    reached, num_near_ties = [], 0
    # The tokens that decide stand before others, too.
    crossed = make_trie([(5, 5, 9, EOS), (5, 6, 9, EOS), (6, 5, 9, EOS), (6, 6, 9, EOS)])
    for trie in [*random_pools(8), rig.names_trie(), crossed]:
        found = generator.generate_constrained(few, trie)
        walked = greedy_search(generator.next_logprobs, few, trie)
        for prompt, generation, number in zip(few, found, walked, strict=True):
            sequence, logprob, gap = rig.greedy(prompt, trie.sequences)
            if gap < MIN_GAP:
                num_near_ties += 1
                continue
            assert trie.sequences[number] == sequence
            assert generation.text == rig.tokenizer.decode([token for token in sequence if token != EOS])
            assert (generation.num_tokens, generation.finish_reason) == (len(sequence), "stop")
            assert generation.logprob == pytest.approx(logprob, abs=1e-4)
            reached.append(number)
    assert {0, 1, 5} <= set(reached), "a name, one that it begins, and the single token"
    assert num_near_ties < 10


def test_5000_constrained_generations_stay_in_the_pool(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    names = ["gpt-4", "gpt-4o", "4o", "o1", "a", "a b"]
    trie = make_trie([[*rig.ids(f" {name}"), EOS] for name in names])
    queries = [draw.choices(range(3, 320), k=draw.randint(1, 12)) for _ in range(5000)]
    change(monkeypatch, rig.transformers, batch_size=500)
    found = rig.transformers.generate_constrained(queries, trie)
    assert {generation.text for generation in found} <= {f" {name}" for name in names}
    near_ties: list[Sequence[int]] = []

    def next_logprobs(prefixes: Any, token_ids: Any) -> list[NDArray[np.float64]]:
        rows = rig.transformers.next_logprobs(prefixes, token_ids)
        near_ties.extend(
            prefix for prefix, row in zip(prefixes, rows, strict=True) if np.diff(np.sort(row))[-1] < MIN_GAP
        )
        return rows

    walked = greedy_search(next_logprobs, queries, trie)
    # The walk and the generation compute a token in batches of other shapes, so a near tie may go either way.
    clear = [
        (f" {names[number]}", generation.text)
        for query, number, generation in zip(queries, walked, found, strict=True)
        if not any(prefix[: len(query)] == query for prefix in near_ties)
    ]
    assert len(clear) > 4900
    assert all(name == text for name, text in clear)
    assert len(set(walked)) > 2


def test_vllm_keeps_to_the_names_own_tokens(rig: Rig, prompts: list[list[int]]) -> None:
    # The text of the one sequence could be spelled with fewer tokens, which a grammar over text would allow.
    word = rig.ids(" Query")
    letters = [token for letter in " Query" for token in rig.ids(letter)]
    assert len(word) < len(letters)
    trie = make_trie([(*letters, EOS), (300, EOS)])
    sequences = {rig.tokenizer.decode(ids[:-1]): len(ids) for ids in trie.sequences}
    for generation in rig.vllm.generate_constrained(prompts, trie):
        assert generation.num_tokens == sequences[generation.text]


def test_generation_that_left_the_trie_is_an_error(rig: Rig) -> None:
    trie = make_trie([(5, 6, EOS), (5, 7, EOS)])
    decided = cut_when_decided(trie)
    found = make_constrained_generation(rig.tokenizer, trie, decided, [5, 7, EOS, 9], [-1.0, -2.0, -4.0, -8.0])
    assert (found.logprob, found.num_tokens) == (-3, 3), "what follows the deciding token is certain"
    for ids in ([5, 8, EOS], [5], []):
        with pytest.raises(ValueError, match="targets: "):
            make_constrained_generation(rig.tokenizer, trie, decided, ids, [0.0] * len(ids))


def test_special_tokens_of_a_sequence_are_text_and_its_end_is_not(rig: Rig, prompts: list[list[int]]) -> None:
    for generator in (rig.vllm, rig.transformers):
        (found,) = generator.generate_constrained(prompts[:1], make_trie([(BOS,)]))
        assert (found.text, found.num_tokens, found.logprob) == ("<s>", 1, 0)
        (found,) = generator.generate_constrained(prompts[:1], make_trie([(BOS, EOS)]))
        assert (found.text, found.num_tokens) == ("<s>", 2)


def test_walk_asks_only_where_the_trie_branches_and_for_all_prompts_of_a_round() -> None:
    trie = make_trie([(9, 5, 6, EOS), (9, 5, 7, 8, EOS), (9, 4, EOS)])
    rounds = []

    def next_logprobs(prefixes: Any, token_ids: Any) -> list[NDArray[np.float64]]:
        rounds.append(list(zip(prefixes, token_ids, strict=True)))
        # Prompt 1 goes to 4; to prompt 2 all tokens are alike; prompt 3 likes high tokens.
        likes = {1: -1.0, 2: 0.0, 3: 1.0}
        return [np.array(ids) * likes[prefix[0]] for prefix, ids in rounds[-1]]

    assert greedy_search(next_logprobs, [[1], [2], [3]], trie) == [2, 2, 1]
    assert rounds == [
        [([1, 9], [4, 5]), ([2, 9], [4, 5]), ([3, 9], [4, 5])],
        [([3, 9, 5], [6, 7])],
    ]
    rounds.clear()
    assert greedy_search(next_logprobs, [[1], [1]], make_trie([(4, 5, EOS)])) == [0, 0]
    assert rounds == [], "a pool of one needs no model"


# Further tokens that end a generation


def bias(backend: str, token: int, value: float) -> dict[str, Any]:
    """Sampling arguments of a backend that add `value` to a token's logit."""
    return {"logit_bias": {token: value}} if backend == "vllm" else {"sequence_bias": [[[token], value]]}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("token", [BOS, 300])
def test_stop_id_ends_the_generation_and_is_text(
    token: int, backend: str, rig: Rig, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = rig.generator(backend)
    change(monkeypatch, generator, max_new_tokens=3, sampling_args=bias(backend, token, 90.0))
    (found,) = generator.generate(prompts[:1], stop_ids=[299, token])
    expected = float(rig.next_logprobs(prompts[0])[token])
    assert (found.text, found.num_tokens, found.finish_reason) == (rig.tokenizer.decode([token]), 1, "stop")
    assert found.logprob == pytest.approx(expected, abs=1e-4)
    (found,) = generator.generate(prompts[:1], stop_ids=[299])
    text = "" if token == BOS else rig.tokenizer.decode([token] * 3)
    assert (found.text, found.num_tokens, found.finish_reason) == (text, 3, "length")


@pytest.mark.parametrize("backend", BACKENDS)
def test_end_token_is_no_text_beside_stop_ids(
    backend: str, rig: Rig, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = rig.generator(backend)
    change(monkeypatch, generator, sampling_args=bias(backend, EOS, 90.0))
    (found,) = generator.generate(prompts[:1], stop_ids=[EOS, BOS])
    assert (found.text, found.num_tokens, found.finish_reason) == ("", 1, "stop")


# Room in the engine


def test_target_longer_than_max_new_tokens_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    change(monkeypatch, rig.vllm, max_new_tokens=2)
    trie = make_trie([(5, 6, EOS), (5, 6, 7, EOS), (7, EOS)])
    with pytest.raises(ValueError, match=r"inference\.max_new_tokens must be at least 3.*got 2"):
        rig.vllm.generate_constrained([[3, 4]], trie)


def test_prefix_that_leaves_no_room_is_refused(rig: Rig) -> None:
    room = MAX_PROMPT_TOKENS + 24
    assert len(rig.vllm.next_logprobs([[5] * (room - 1)], [[6]])[0]) == 1
    with pytest.raises(ValueError, match=r"inference\.max_new_tokens must be at least 25, got 24"):
        rig.vllm.next_logprobs([[5] * room], [[6]])


def test_a_head_that_shares_the_embedding_follows_a_reload(
    tiny_base: Any, tiny_config: Callable[..., TrainConfig], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Rows of new tokens change the embedding, and with it such a head: vLLM's reload alone leaves the head behind."""
    base = load_base_model(tiny_base.path, tiny_base.config)
    base.config.tie_word_embeddings = True
    base.tie_weights()
    for name in ("base", "trained"):
        base.save_pretrained(tmp_path / name)
        tiny_base.tokenizer.save_pretrained(tmp_path / name)
        with torch.no_grad():
            base.get_input_embeddings().weight[100:110] += 3.0 * torch.eye(10, 128)
    config = tiny_config("inference=vllm")
    trained = load_base_model(str(tmp_path / "trained"), config.base_model)
    prompt, tokens = [13, 14, 15, 16], list(range(98, 112))
    with torch.inference_mode():
        expected = trained(torch.tensor([prompt])).logits[0, -1].float().log_softmax(dim=-1)[tokens].numpy()
        before = load_base_model(str(tmp_path / "base"), config.base_model)(torch.tensor([prompt])).logits[0, -1]
    generator = open_generator(
        config.inference, config.base_model, config.lora, str(tmp_path / "base"), tiny_base.tokenizer, MAX_PROMPT_TOKENS
    )
    capfd.readouterr()
    try:
        generator.load_weights(tmp_path / "trained")
        found = generator.next_logprobs([prompt], [tokens])[0]
    finally:
        generator.close()
    assert capfd.readouterr() == ("", ""), "an engine's start, its native code and its answers leave the terminal alone"
    assert np.abs(found - expected).max() < 1e-4
    assert np.abs(found - before.float().log_softmax(dim=-1)[tokens].numpy()).max() > 1e-2
