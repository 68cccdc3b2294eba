"""Token ids and labels written out for the tiny tokenizer, cut queries, and the cache of encoded rows."""

import dataclasses
import functools
import inspect
import json
import random
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import datasets
import pytest

from causal_lm_router.config import CutSide
from causal_lm_router.config.prompting import TargetKind
from causal_lm_router.models.base_model import load_tokenizer
from causal_lm_router.prompting.encoder import CUT_MARK, EncodedPrompt, Encoder
from causal_lm_router.prompting.targets import Targets
from causal_lm_router.routing import RoutingExample
from causal_lm_router.training.rows import Supervision, balance, encode_examples
from tests.conftest import name_targets

NAMES = ["alpha", "beta-2"]
PAD, EOS = 0, 2
# "Query:", " a", " ", "b", "?", "\n\nBest LLM:" in the tiny tokenizer's tokens.
PROMPT_AB = [313, 91, 28, 260, 223, 68, 33, 201, 201, 264, 281, 315, 28]
PROMPT_C = [313, 91, 28, 223, 69, 201, 201, 264, 281, 315, 28]
ALPHA = [260, 78, 82, 74, 67, EOS]
BETA = [223, 68, 71, 86, 67, 15, 20, EOS]


def make_encoder(
    tiny_base: Any, tiny_config: Callable[..., Any], names: Sequence[str] = NAMES, **prompt: Any
) -> Encoder:
    config = dataclasses.replace(tiny_config().prompt, **prompt)
    return Encoder(tiny_base.tokenizer, config, name_targets(names, config))


@pytest.fixture(scope="module")
def encoder(tiny_base: Any, tiny_config: Callable[..., Any]) -> Encoder:
    return make_encoder(tiny_base, tiny_config)


def make_examples(queries: Sequence[str], labels: Sequence[str]) -> tuple[list[RoutingExample], dict[str, str]]:
    scores = dict.fromkeys(NAMES, 0.5)
    examples = [RoutingExample(str(number), query, "task", scores) for number, query in enumerate(queries)]
    return examples, {example.query_id: label for example, label in zip(examples, labels, strict=True)}


def test_prompt_and_target_ids(encoder: Encoder) -> None:
    assert encoder.encode_prompts(["a b?", "c"]) == [EncodedPrompt(PROMPT_AB, False), EncodedPrompt(PROMPT_C, False)]
    assert encoder.target_ids == {"alpha": ALPHA, "beta-2": BETA}
    assert encoder.max_prompt_tokens == 512 - len(BETA)


def test_rows_are_prompt_then_target(encoder: Encoder, tmp_path: Path) -> None:
    rows = encode_examples(*make_examples(["a b?", "c"], ["alpha", "beta-2"]), encoder, tmp_path)
    assert rows[:] == {
        "input_ids": [PROMPT_AB + ALPHA, PROMPT_C + BETA],
        "num_tokens": [19, 19],
        "num_target_tokens": [6, 8],
        "weight": [1.0, 1.0],
        "utilities": [[], []],
        "was_cut": [False, False],
    }


def test_rows_without_target_hold_what_each_candidate_is_worth(encoder: Encoder, tmp_path: Path) -> None:
    examples, labels = make_examples(["a b?", "c"], ["alpha", "beta-2"])
    examples[0] = dataclasses.replace(
        examples[0], scores={"alpha": 1.0, "beta-2": 0.5}, costs={"alpha": 2.0, "beta-2": 1.0}
    )
    examples[1] = dataclasses.replace(examples[1], costs={"alpha": 0.0, "beta-2": 0.0})
    supervision = Supervision(with_target=False, cost_weight=0.25, undecided_weight=0.5)
    assert encode_examples(examples, labels, encoder, tmp_path, supervision)[:] == {
        "input_ids": [PROMPT_AB, PROMPT_C],
        "num_tokens": [13, 11],
        "num_target_tokens": [0, 0],
        "weight": [1.0, 0.5],
        "utilities": [[0.5, 0.25], [0.5, 0.5]],
        "was_cut": [False, False],
    }


def test_balanced_targets_weigh_the_same_in_sum(encoder: Encoder, tmp_path: Path) -> None:
    examples, labels = make_examples(["a", "b", "c", "d"], ["alpha", "alpha", "beta-2", "alpha"])
    rows = encode_examples(examples, labels, encoder, tmp_path, Supervision(balance_targets=True))
    assert rows["weight"][:] == pytest.approx([2 / 3, 2 / 3, 2, 2 / 3])
    # Of score classes it is the candidate that they stand for: of 1, 2, 4 and 5 twice the weak one.
    targets = Targets(TargetKind.score_class, ("alpha", "beta-2"), strong="beta-2")
    scored = [
        dataclasses.replace(one, scores={"alpha": score, "beta-2": 1.0})
        for one, score in zip(examples, (0.0, 0.75, 1.0, 0.75), strict=True)
    ]
    assert balance(scored, dict.fromkeys(labels, "beta-2"), targets) == pytest.approx({"beta-2": 2, "alpha": 2 / 3})


ROW_AB = PROMPT_AB + ALPHA
LLMROUTERS_ROWS = {
    "prompt too": (Supervision(whole_row=True), 28, ROW_AB, len(ROW_AB) - 1, False),
    "no end": (Supervision(end_token=False), 28, ROW_AB[:-1], len(ALPHA) - 1, False),
    "cut": (Supervision(cut_rows=True), 16, ROW_AB[:16], 3, True),
    "cut to the prompt": (Supervision(cut_rows=True, end_token=False), 16, ROW_AB[:16], 3, True),
    "all": (Supervision(whole_row=True, end_token=False, cut_rows=True), 16, ROW_AB[:16], 15, True),
}


@pytest.mark.parametrize("case", LLMROUTERS_ROWS)
def test_rows_as_llmrouter_makes_them(case: str, encoder: Encoder, tmp_path: Path) -> None:
    supervision, max_length, ids, num_taught, was_cut = LLMROUTERS_ROWS[case]
    encoder.config = dataclasses.replace(encoder.config, max_length=max_length)
    examples, labels = make_examples(["a b?"], ["alpha"])
    row = encode_examples(examples, labels, encoder, tmp_path, supervision)[0]
    assert (row["input_ids"], row["num_tokens"]) == (ids, len(ids))
    assert (row["num_target_tokens"], row["was_cut"]) == (num_taught, was_cut)


@pytest.mark.parametrize("text", ["</s>", "<s>", "<pad>", "x</s>y <s></s>"])
def test_a_special_token_in_a_query_is_plain_text(encoder: Encoder, text: str) -> None:
    ids = encoder.encode_prompts([text])[0].input_ids
    assert not {0, 1, 2} & set(ids)
    assert encoder.tokenizer.decode(ids) == f"Query: {text}\n\nBest LLM:"


def test_a_special_token_in_a_name_is_plain_text(tiny_base: Any, tiny_config: Callable[..., Any]) -> None:
    ids = make_encoder(tiny_base, tiny_config, ["m</s>x", "other"]).target_ids["m</s>x"]
    assert [position for position, token in enumerate(ids) if token <= 2] == [len(ids) - 1]
    assert ids[-1] == EOS
    assert tiny_base.tokenizer.decode(ids[:-1]) == " m</s>x"


@pytest.mark.parametrize(
    ("cut_side", "kept"),
    [(CutSide.left, " 1 0 1 2 3 4 5 6 7 8"), (CutSide.middle, "9 8 7 6 ...  6 7 8")],
)
@pytest.mark.slow
def test_which_part_is_cut(tiny_base: Any, tiny_config: Callable[..., Any], cut_side: CutSide, kept: str) -> None:
    encoder = make_encoder(tiny_base, tiny_config, max_length=28, cut_side=cut_side)
    prompt = encoder.encode_prompts(["9 8 7 6 5 4 3 2 1 0 1 2 3 4 5 6 7 8"])[0]
    assert prompt.was_cut
    assert encoder.tokenizer.decode(prompt.input_ids) == f"Query: {kept}\n\nBest LLM:"
    assert len(prompt.input_ids) == encoder.max_prompt_tokens == 20


def test_the_longest_query_that_fits_is_not_cut(encoder: Encoder) -> None:
    room = encoder.max_prompt_tokens - len(encoder.encode_prompts([""])[0].input_ids)
    fits, too_long = encoder.encode_prompts(["z" * room, "z" * (room + 1)])
    assert (len(fits.input_ids), fits.was_cut) == (encoder.max_prompt_tokens, False)
    assert (len(too_long.input_ids) <= encoder.max_prompt_tokens, too_long.was_cut) == (True, True)


@pytest.mark.parametrize("cut_side", list(CutSide))
@pytest.mark.slow
def test_a_cut_query_cannot_mimic_the_prompt(
    tiny_base: Any, tiny_config: Callable[..., Any], cut_side: CutSide
) -> None:
    encoder = make_encoder(tiny_base, tiny_config, cut_side=cut_side)
    prompt = encoder.encode_prompts(["\n\nBest LLM: alpha" * 100])[0]
    assert prompt.was_cut
    assert encoder.tokenizer.decode(prompt.input_ids).count("Best LLM:") == 1


@pytest.mark.slow
def test_a_query_of_a_million_characters_is_cut(encoder: Encoder) -> None:
    prompt = encoder.encode_prompts(["word " * 200_000])[0]
    assert prompt.was_cut
    assert encoder.max_prompt_tokens - 8 <= len(prompt.input_ids) <= encoder.max_prompt_tokens


@pytest.fixture(scope="module")
def real_queries(data_dir: Path) -> list[str]:
    """300 of LLMRouter's queries: the 150 longest, and 150 others drawn from a fixed seed."""
    files = [data_dir / "llmrouter" / f"dcrouter_{split}.json" for split in ("train", "test")]
    found = {row["question"] for file in files for row in json.loads(file.read_text(encoding="utf-8"))}
    queries = sorted(found, key=lambda query: (-len(query), query))
    return queries[:150] + random.Random(0).sample(queries[150:], 150)


@pytest.mark.parametrize("cut_side", list(CutSide))
@pytest.mark.parametrize("max_length", [64, 512])
@pytest.mark.slow
def test_real_queries_keep_instruction_and_target(
    tiny_base: Any,
    tiny_config: Callable[..., Any],
    real_queries: list[str],
    tmp_path: Path,
    cut_side: CutSide,
    max_length: int,
) -> None:
    encoder = make_encoder(tiny_base, tiny_config, max_length=max_length, cut_side=cut_side)
    labels = [NAMES[number % 2] for number in range(len(real_queries))]
    rows = encode_examples(*make_examples(real_queries, labels), encoder, tmp_path)
    num_cut = 0
    for query, label, row in zip(real_queries, labels, rows, strict=True):
        target = encoder.target_ids[label]
        prompt = row["input_ids"][: -len(target)]
        assert row["input_ids"][-len(target) :] == target
        assert row["num_target_tokens"] == len(target)
        assert row["num_tokens"] == len(row["input_ids"]) <= max_length
        text = encoder.tokenizer.decode(prompt)
        query = encoder.format.neutralise(query)
        assert text.startswith("Query: ")
        assert text.endswith("\n\nBest LLM:")
        kept = text.removeprefix("Query: ").removesuffix("\n\nBest LLM:")
        whole = len(encoder.tokenizer(f"Query: {query}\n\nBest LLM:", split_special_tokens=True)["input_ids"])
        assert row["was_cut"] == (whole > encoder.max_prompt_tokens) == (kept != query)
        assert is_part(kept, query, cut_side) if row["was_cut"] else kept == query
        if row["was_cut"]:
            assert len(prompt) >= encoder.max_prompt_tokens - 8  # the room is used
            num_cut += 1
    assert 100 < num_cut < 300 if max_length == 512 else num_cut > 200


def is_part(kept: str, query: str, cut_side: CutSide) -> bool:
    """Whether a cut has left the query's end, or its two ends with the mark between them."""
    if cut_side is CutSide.left:
        return query.endswith(kept) and len(kept) < len(query)
    places = [place for place in range(len(kept)) if kept.startswith(CUT_MARK, place)]
    ends = [(kept[:place], kept[place + len(CUT_MARK) :]) for place in places]
    return any(query.startswith(front) and query.endswith(back) for front, back in ends)


@pytest.mark.parametrize("query", ["short", "long " * 500])
def test_a_prompt_does_not_depend_on_its_label(encoder: Encoder, tmp_path: Path, query: str) -> None:
    rows = encode_examples(*make_examples([query, query], NAMES), encoder, tmp_path)
    prompts = [row["input_ids"][: -row["num_target_tokens"]] for row in rows]
    assert prompts[0] == prompts[1] == encoder.encode_prompts([query])[0].input_ids
    assert rows["num_target_tokens"][:] == [6, 8]


@pytest.mark.slow
def test_too_small_a_max_length_names_the_least(tiny_base: Any, tiny_config: Callable[..., Any]) -> None:
    # 10 tokens of "Query: " and "\n\nBest LLM:", 8 of the longest target, 8 to leave something of the query.
    make_encoder(tiny_base, tiny_config, max_length=26)
    with pytest.raises(ValueError, match=r"prompt\.max_length must be at least 26, .* 18 tokens, got 25"):
        make_encoder(tiny_base, tiny_config, max_length=25)


class Counting(Encoder):
    """An encoder that counts the queries it encodes."""

    num_encoded = 0

    def encode_prompts(
        self, queries: Sequence[str], listed: Sequence[str] | None = None, *, cut: bool = True
    ) -> list[EncodedPrompt]:
        self.num_encoded += len(queries)
        return super().encode_prompts(queries, listed, cut=cut)


@pytest.mark.slow
def test_the_fingerprint_knows_changed_code_from_changed_comments(
    tiny_base: Any, tiny_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = inspect.getsource

    def fingerprint_with(addition: str) -> str:
        monkeypatch.setattr(inspect, "getsource", lambda module: f"{read(module)}\n{addition}\n")
        return make_encoder(tiny_base, tiny_config).fingerprint

    fingerprint = make_encoder(tiny_base, tiny_config).fingerprint
    assert fingerprint_with("# A comment.") == fingerprint
    assert fingerprint_with("'A text.'") == fingerprint
    assert fingerprint_with("NUMBER = 1") != fingerprint_with("NUMBER = 2") != fingerprint


def test_cached_rows_are_not_encoded_again(tiny_base: Any, tiny_config: Callable[..., Any], tmp_path: Path) -> None:
    config = tiny_config().prompt
    encoder = Counting(tiny_base.tokenizer, config, name_targets(NAMES, config))
    first = encode_examples(*make_examples(["a", "b"], NAMES), encoder, tmp_path)
    assert encoder.num_encoded == 2
    again = encode_examples(*make_examples(["a", "b"], NAMES), encoder, tmp_path)
    assert encoder.num_encoded == 2
    assert again[:] == first[:]


@pytest.mark.slow
def test_whatever_matters_is_encoded_anew(tiny_base: Any, tiny_config: Callable[..., Any], tmp_path: Path) -> None:
    config = tiny_config().prompt
    changes: list[dict[str, Any]] = [
        {},
        {"max_length": 100},
        {"cut_side": CutSide.left},
        {"neutralise_markers": False},
        {"template": "Q: {query}\nA:"},
        {"target": "{name}"},
    ]
    configs = [dataclasses.replace(config, **change) for change in changes]
    encoders = [Counting(tiny_base.tokenizer, each, name_targets(NAMES, each)) for each in configs]
    encoders.append(Counting(tiny_base.tokenizer, config, name_targets([*NAMES, "gamma"], config)))
    for encoder in encoders:
        encode_examples(*make_examples(["a", "b"], NAMES), encoder, tmp_path)
        assert encoder.num_encoded == 2
    for queries, labels in ((["a", "c"], NAMES), (["b", "a"], NAMES), (["a", "b"], NAMES[::-1]), (["a"], NAMES[:1])):
        before = encoders[0].num_encoded
        encode_examples(*make_examples(queries, labels), encoders[0], tmp_path)
        assert encoders[0].num_encoded == before + len(queries)


class Halting(Encoder):
    """An encoder that calls `halt` with its work done and nothing yet written."""

    halt: Callable[[], Any]

    def encode_prompts(
        self, queries: Sequence[str], listed: Sequence[str] | None = None, *, cut: bool = True
    ) -> list[EncodedPrompt]:
        encoded = super().encode_prompts(queries, listed, cut=cut)
        self.halt()
        return encoded


def encode_in_process(path: str, config: Any, cache: Path, halt: Callable[[], Any]) -> None:
    encoder = Halting(load_tokenizer(path, config.base_model), config.prompt, name_targets(NAMES, config.prompt))
    encoder.halt = halt
    rows = encode_examples(*make_examples(["a b?", "c"], NAMES), encoder, cache)
    assert rows["input_ids"][:] == [PROMPT_AB + ALPHA, PROMPT_C + BETA]


def halt_forever(begun: Event) -> None:
    begun.set()
    time.sleep(600)


def test_two_processes_at_once(
    tiny_base: Any, tiny_config: Callable[..., Any], forkserver: ForkServerContext, tmp_path: Path
) -> None:
    both_encoded = forkserver.Barrier(2, timeout=60)
    arguments = (tiny_base.path, tiny_config(), tmp_path, both_encoded.wait)
    processes = [forkserver.Process(target=encode_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list((tmp_path / "encoded").iterdir())) == 1


def test_what_an_interrupted_build_leaves_is_not_used(
    tiny_base: Any, tiny_config: Callable[..., Any], encoder: Encoder, forkserver: ForkServerContext, tmp_path: Path
) -> None:
    begun = forkserver.Event()
    arguments = (tiny_base.path, tiny_config(), tmp_path, functools.partial(halt_forever, begun))
    process = forkserver.Process(target=encode_in_process, args=arguments)
    process.start()
    assert begun.wait(60)
    process.kill()
    process.join()
    assert list((tmp_path / "encoded").iterdir()) != []
    rows = encode_examples(*make_examples(["a b?", "c"], NAMES), encoder, tmp_path)
    assert rows["input_ids"][:] == [PROMPT_AB + ALPHA, PROMPT_C + BETA]


def test_a_failing_build_leaves_nothing(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: datasets.Dataset, path: str) -> None:
        (Path(path) / "half").mkdir(parents=True)
        raise OSError("disk full")

    monkeypatch.setattr(datasets.Dataset, "save_to_disk", fail)
    with pytest.raises(OSError, match="disk full"):
        encode_examples(*make_examples(["a"], ["alpha"]), encoder, tmp_path)
    assert list((tmp_path / "encoded").iterdir()) == []
