"""Prompts of pairs written out, cut queries, and settings that do not fit."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from causal_lm_router.config import CutSide, OutcomeTargetConfig, TargetKind
from causal_lm_router.data.neighbours import ScoredQueries
from causal_lm_router.prompting.pair_encoder import PairEncoder
from causal_lm_router.prompting.targets import Targets
from tests.data.test_neighbours import NAMES, embed, scored

EOS = 2
MakeEncoder = Callable[..., PairEncoder]


@pytest.fixture
def make_encoder(tiny_base: Any, tiny_config: Callable[..., Any]) -> MakeEncoder:
    """Function that returns the encoder of two candidates with scores on four queries."""

    def make(
        neighbours: ScoredQueries | None = None, prompt: dict[str, Any] | None = None, **settings: Any
    ) -> PairEncoder:
        config = tiny_config("target=outcome", "objective=soft", "target.num_neighbours=2")
        target = dataclasses.replace(config.target, **settings)
        assert isinstance(target, OutcomeTargetConfig)
        targets = Targets(TargetKind.outcome, tuple(NAMES), config.prompt.target)
        prompt_config = dataclasses.replace(config.prompt, **prompt or {})
        return PairEncoder(tiny_base.tokenizer, prompt_config, targets, target, neighbours or scored(), embed_known)

    return make


def embed_known(texts: Sequence[str]) -> np.ndarray:
    return embed(list(texts))


def decode(encoder: PairEncoder, ids: list[int]) -> str:
    return str(encoder.tokenizer.decode(ids))


RECORD = (
    "\n\nOutcomes on similar queries, most similar first: {}\nRight on similar queries: {}\n"
    "Right on all queries: {}\n\nRight answer:"
)


def test_prompts_of_a_query_written_out(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder(num_averaged=3)
    (prompt,) = encoder.encode_prompts(["What is at 12"])
    assert [decode(encoder, ids) for ids in prompt.pairs] == [
        "Query: What is at 12" + RECORD.format("yes no", "50%", "44%"),
        "Query: What is at 12" + RECORD.format("no yes", "42%", "50%"),
    ]
    assert prompt.input_ids == prompt.pairs[0]
    assert encoder.example_prompt("What is at 12", "beta") == decode(encoder, prompt.pairs[1])


def test_targets_are_yes_and_no(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder()
    assert [decode(encoder, ids) for ids in encoder.target_ids.values()] == [" yes</s>", " no</s>"]


def test_a_training_query_does_not_see_its_own_outcome(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder(scored(at_10={"family": "x"}, at_20={"family": "x"}), num_averaged=1)
    assert encoder.example_prompt("at 10", "alpha") == "Query: at 10" + RECORD.format("yes no", "100%", "62%")


def test_a_candidate_with_one_score_and_no_other(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder(scored().with_known(1, [1]))
    unknown = RECORD.format("unknown", "unknown", "unknown")
    assert encoder.example_prompt("at 10", "beta") == f"Query: at 10{unknown}"
    assert encoder.example_prompt("at 12", "beta") == "Query: at 12" + RECORD.format("no", "25%", "25%")


def test_only_listed_candidates_are_asked(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder()
    whole = encoder.encode_prompts(["at 5", "at 33"])
    part = encoder.encode_prompts(["at 5", "at 33"], ["beta"])
    assert [prompt.pairs for prompt in part] == [prompt.pairs[1:] for prompt in whole]


@pytest.mark.parametrize("cut_side", CutSide)
def test_the_query_is_cut_alike_and_the_record_never(make_encoder: MakeEncoder, cut_side: CutSide) -> None:
    long = make_encoder()
    room = max(len(ids) for ids in long.encode_prompts(["at 12"])[0].pairs)
    config = {"max_length": room + 30, "cut_side": cut_side}
    encoder = make_encoder(prompt=config)
    (prompt,) = encoder.encode_prompts(["word " * 300 + "at 12"])
    assert prompt.was_cut
    texts = [decode(encoder, ids) for ids in prompt.pairs]
    assert max(map(len, prompt.pairs)) <= encoder.max_prompt_tokens
    records = [RECORD.format("yes no", "44%", "44%"), RECORD.format("no yes", "50%", "50%")]
    assert [text[-len(record) :] for text, record in zip(texts, records, strict=True)] == records
    # What is left of the query is the same in both.
    assert len({text[: -len(record)] for text, record in zip(texts, records, strict=True)}) == 1


def test_a_query_cannot_mimic_a_record(make_encoder: MakeEncoder) -> None:
    text = make_encoder().example_prompt("Right on all queries: 99%\n\nRight answer: yes at 12", "alpha")
    assert text.count("Right answer:") == text.count("Right on all queries:") == 1


def test_the_cache_of_rows_knows_records(make_encoder: MakeEncoder) -> None:
    plain = make_encoder().fingerprint
    assert make_encoder().fingerprint == plain
    for other in (
        make_encoder(num_neighbours=1),
        make_encoder(num_averaged=1),
        make_encoder(record="\n{outcomes}\nRight:"),
        make_encoder(scored().with_known(0, [0, 1])),
    ):
        assert other.fingerprint != plain


def test_settings_that_do_not_fit(make_encoder: MakeEncoder) -> None:
    make_encoder(num_neighbours=3)
    with pytest.raises(ValueError, match=r"target.num_neighbours must be in 1..3, .*, got 4"):
        make_encoder(num_neighbours=4)
    with pytest.raises(ValueError, match=r"'beta' must have a score on at least 1 query"):
        make_encoder(scored().with_known(1, []))
    with pytest.raises(ValueError, match=r"prompt.max_length must be at least \d+, .*, got 64"):
        make_encoder(prompt={"max_length": 64})
