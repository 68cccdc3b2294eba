"""Decoding methods over a scripted base model: what each reads, and how likelihoods become predictions."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import logit

from causal_lm_router.config import DecodingMethod
from causal_lm_router.config.prompting import TargetKind
from causal_lm_router.data.train_means import train_means
from causal_lm_router.evaluation.evaluate import evaluate_router
from causal_lm_router.evaluation.metrics import Evaluation
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.generation.decoder import Decoder, Decoding
from causal_lm_router.prompting.encoder import Encoder
from causal_lm_router.prompting.pair_encoder import PairEncoder
from causal_lm_router.prompting.targets import Targets
from causal_lm_router.prompting.token_trie import TokenTrie
from causal_lm_router.routing import Candidate, Generation, RoutingExample
from tests.conftest import Result, name_targets
from tests.data.test_neighbours import NAMES as SCORED_NAMES
from tests.data.test_neighbours import embed, scored

NAMES = ("alpha", "beta-2")


class Script:
    """A generator that says and thinks what it is told to, the same for every prompt."""

    def __init__(self, text: str, logprobs: Sequence[float], empty: Sequence[float] = ()) -> None:
        self.text, self.logprobs, self.empty = text, logprobs, empty

    def generate(self, prompts: Sequence[Sequence[int]], stop_ids: Sequence[int] = ()) -> list[Generation]:
        return [Generation(self.text, "stop") for _ in prompts]

    def generate_constrained(self, prompts: Sequence[Sequence[int]], trie: TokenTrie) -> list[Generation]:
        return [Generation("alpha", "stop") for _ in prompts]

    def next_logprobs(
        self, prefixes: Sequence[Sequence[int]], token_ids: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float64]]:
        return [-np.arange(len(ids), dtype=np.float64) for ids in token_ids]

    def sequence_logprobs(self, prompts: Sequence[Sequence[int]], trie: TokenTrie) -> NDArray[np.float64]:
        assert len(trie.sequences) == len(self.logprobs)
        row = self.empty if len(prompts) == 1 and self.empty else self.logprobs
        return np.array([row for _ in prompts], dtype=np.float64)


@pytest.fixture
def make_decoder(tiny_base: Any, tiny_config: Callable[..., Any]) -> Callable[..., tuple[Decoder, Encoder]]:
    def make(script: Script, *overrides: str, targets: Targets | None = None, costs: Any = None) -> Any:
        config = tiny_config(*overrides)
        encoder = Encoder(tiny_base.tokenizer, config.prompt, targets or name_targets(NAMES, config.prompt))
        decoder = Decoder(script, encoder, config.decoding, config.objective, config.parsing, costs)
        return decoder, encoder

    return make


@pytest.mark.slow
def test_shares_of_the_likelihood(make_decoder: Callable[..., tuple[Decoder, Encoder]]) -> None:
    decoder, encoder = make_decoder(Script("what", [math.log(0.1), math.log(0.3)]), "decoding=scored")
    decoding = decoder.decode(DecodingMethod.scored, encoder.encode_prompts(["a", "b"]))[1]
    assert decoding.route.candidate == "beta-2"
    assert decoding.predicted == pytest.approx({"alpha": 0.25, "beta-2": 0.75})
    assert decoding.valid_mass == pytest.approx(0.4)
    assert decoding.generation.logprob == pytest.approx(math.log(0.3))


@pytest.mark.slow
def test_mean_and_prior(make_decoder: Callable[..., tuple[Decoder, Encoder]]) -> None:
    # alpha has 6 tokens and beta-2 has 8, the end token included: -6/6 against -7.2/8
    script = Script("", [-6.0, -7.2])
    decoder, encoder = make_decoder(script, "decoding=scored", "decoding.normalisation=mean")
    prompts = encoder.encode_prompts(["a", "b"])
    decoding = decoder.decode(DecodingMethod.scored, prompts)[0]
    assert decoding.route.candidate == "beta-2"
    assert decoding.predicted["beta-2"] == pytest.approx(1 / (1 + math.exp(-0.1)))
    script = Script("", [-6.0, -7.2], empty=[-2.0, -5.0])
    decoder, _ = make_decoder(script, "decoding=scored", "decoding.normalisation=prior")
    decoding = decoder.decode(DecodingMethod.scored, prompts)[0]
    assert decoding.route.candidate == "beta-2"
    assert decoding.predicted["beta-2"] == pytest.approx(1 / (1 + math.exp(-1.8)))


def test_rounding_takes_no_share_above_1(make_decoder: Callable[..., tuple[Decoder, Encoder]]) -> None:
    rounded = [math.log(0.6 + 5e-7), math.log(0.4 + 5e-7)]
    decoder, encoder = make_decoder(Script("what", rounded), "decoding=scored")
    decoding = evaluate(decoder, encoder, DecodingMethod.scored).report.decoding
    assert decoding is not None
    assert decoding.valid_mass is not None
    assert decoding.valid_mass.value == 1.0


def test_per_candidate_reads_scores_against_the_end(make_decoder: Callable[..., tuple[Decoder, Encoder]]) -> None:
    script = Script("", [-1.0, -2.0, -8.0])
    overrides = ("decoding=scored", "objective=per_candidate", "objective.reference_offset=6.0")
    decoder, encoder = make_decoder(script, *overrides)
    decoding = decoder.decode(DecodingMethod.scored, encoder.encode_prompts(["a"]))[0]
    assert decoding.predicted == pytest.approx({"alpha": 1 / (1 + math.exp(-1.0)), "beta-2": 0.5})
    assert decoding.valid_mass == pytest.approx(math.exp(-1) + math.exp(-2)), "ending at once names no candidate"
    with pytest.raises(ValueError, match=r"decoding\.normalisation must be sum .*'prior'"):
        make_decoder(script, *overrides, "decoding.normalisation=prior")


@pytest.mark.slow
def test_costs_are_weighed(make_decoder: Callable[..., tuple[Decoder, Encoder]]) -> None:
    script, costs = Script("", [math.log(0.1), math.log(0.3)]), {"alpha": 0.001, "beta-2": 0.003}
    for weight, route in ((200, "beta-2"), (300, "alpha")):  # predicted .25 and .75: equal at 250
        decoder, encoder = make_decoder(script, "decoding=scored", f"decoding.cost_weight={weight}", costs=costs)
        prompts = encoder.encode_prompts(["a"])
        assert decoder.decode(DecodingMethod.scored, prompts)[0].route.candidate == route
    with pytest.raises(ValueError, match=r"decoding\.cost_weight must be 0 .*got 2\.0"):
        make_decoder(script, "decoding=scored", "decoding.cost_weight=2")


def test_score_classes_add_up_to_candidates(
    tiny_base: Any, tiny_config: Callable[..., Any], make_decoder: Callable[..., tuple[Decoder, Encoder]]
) -> None:
    from causal_lm_router.models.base_model import base_model_source, load_tokenizer

    config = tiny_config("decoding=scored", "target=score_class")
    targets = Targets(TargetKind.score_class, NAMES, strong="beta-2")
    tokenizer = load_tokenizer(base_model_source(tiny_base.config, targets.new_tokens), tiny_base.config)
    encoder = Encoder(tokenizer, config.prompt, targets)
    script = Script("hm", [math.log(share) for share in (0.1, 0.1, 0.2, 0.25, 0.35)])
    decoder = Decoder(script, encoder, config.decoding, config.objective, config.parsing, None)
    prompts = encoder.encode_prompts(["a"])
    decoding = decoder.decode(DecodingMethod.scored, prompts)[0]
    assert decoding.route.candidate == "alpha"
    assert decoding.predicted == pytest.approx({"alpha": 0.6, "beta-2": 0.4})
    assert decoding.generation.text == "<|score:5|>"
    assert decoder.decode(DecodingMethod.free, prompts)[0].route.candidate is None, "not silently the strong one"


def evaluate(decoder: Decoder, encoder: Encoder, *methods: DecodingMethod, **final: Any) -> Evaluation:
    examples = [
        RoutingExample(
            str(number), f"q{number}", "t", {"alpha": float(number % 2), "beta-2": 0.5}, {"alpha": 1, "beta-2": 2}
        )
        for number in range(4)
    ]
    labels = {example.query_id: "beta-2" for example in examples}
    means = train_means(examples, (Candidate("alpha"), Candidate("beta-2")))
    return evaluate_router(decoder, encoder, examples, labels, "beta-2", means, None, methods, **final)


def test_an_evaluation_by_several_methods(make_decoder: Callable[..., tuple[Decoder, Encoder]]) -> None:
    decoder, encoder = make_decoder(Script("what", [math.log(0.1), math.log(0.3)]), "decoding=scored")
    methods = (DecodingMethod.scored, DecodingMethod.constrained)
    found = evaluate(decoder, encoder, *methods)
    assert list(found.others) == ["constrained", "free"]
    decoding = found.report.decoding
    assert decoding is not None
    assert decoding.method == "scored"
    assert decoding.free_parse_failure_rate.value == 1.0
    assert decoding.off_list_rate.value == 1.0
    assert decoding.valid_mass is not None
    assert decoding.valid_mass.value == pytest.approx(0.4)
    assert {pair: share.value for pair, share in decoding.differing_routes.items()} == {
        "scored~constrained": 1.0,
        "scored~free": 1.0,
        "constrained~free": 1.0,
    }
    assert found.report.parse_failure_rate.value == 0.0
    assert found.others["free"].report.parse_failure_rate.value == 1.0
    assert found.report.predictions is None
    scored = evaluate(decoder, encoder, *methods, with_predictions=True, validation=found)
    assert scored.report.predictions is not None
    assert scored.report.predictions.temperature is not None
    assert scored.others["free"].report.predictions is None, "a name alone predicts nothing"
    assert RoutingReport.from_dict(scored.report.to_dict()) == scored.report
    assert scored.report.to_metrics()["decoding/differing_routes/scored~free"] == 1.0


def test_a_report_without_the_newer_parts_is_read(make_decoder: Callable[..., tuple[Decoder, Encoder]]) -> None:
    decoder, encoder = make_decoder(Script("alpha", [-1.0, -2.0]))
    plain = evaluate(decoder, encoder, DecodingMethod.free).report.to_dict()
    del plain["decoding"], plain["predictions"]
    assert RoutingReport.from_dict(plain).decoding is None


@pytest.mark.slow
def test_a_run_by_all_methods_leaves_a_folder_each(
    tiny_base: Any, tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    from causal_lm_router.runs.router import CausalLMRouter
    from causal_lm_router.runs.train_run import train_router

    overrides = ["target=token", "objective=per_candidate", "decoding=scored", "decoding.also=[constrained,trie]"]
    report = train_router(tiny_config(f"run_dir={tmp_path}", *overrides, "lora.num_layers=1", "lora.merge_lora=false"))
    assert report is not None
    assert report.predictions is not None
    assert report.decoding is not None
    assert list(report.decoding.mean_scores) == ["scored", "constrained", "trie", "free"]
    routes = {method: read_routes(tmp_path / "decodings" / method) for method in ("constrained", "trie", "free")}
    # Single tokens: three ways to one argmax, but for near ties, which rounding decides.
    scored = [json.loads(line) for line in (tmp_path / "outcomes.jsonl").read_text().splitlines()]
    clear = [row for row in scored if np.diff(logit(sorted(row["predicted"].values())))[-1] > 1e-4]
    assert len(clear) > len(scored) / 2
    for row in clear:
        assert row["route"] == routes["constrained"][row["query_id"]] == routes["trie"][row["query_id"]]
    with CausalLMRouter.from_run(tmp_path) as router:
        route = router.route(["What is 2 + 2?"])[0]
    assert route.predicted is not None
    assert route.called == max(route.predicted, key=lambda name: route.predicted[name])


def read_routes(folder: Path) -> dict[str, str | None]:
    """Query id -> route of an evaluation's outcomes."""
    rows = [json.loads(line) for line in (folder / "outcomes.jsonl").read_text().splitlines()]
    return {row["query_id"]: row["route"] for row in rows}


def test_a_run_is_evaluated_by_several_decodings_in_one_command(
    smoke_run: Path, main: Callable[..., Result], tmp_path: Path
) -> None:
    result = main("evaluate", "-m", f"run_dir={smoke_run}", f"output_dir={tmp_path / 'again'}", "decoding=free,trie")
    assert result.status == 0, result.errors
    found = [json.loads((tmp_path / "again" / number / "report.json").read_text()) for number in "01"]
    assert [report["decoding"]["method"] for report in found] == ["free", "trie"]
    assert (tmp_path / "again" / "1" / "decodings" / "free" / "report.json").is_file()


class Answers:
    """A generator that answers each pair by its place; `logprobs` are those of yes and no."""

    def __init__(self, texts: Sequence[str] = (), logprobs: Sequence[tuple[float, float]] = ()) -> None:
        self.texts, self.logprobs = texts, logprobs

    def generate(self, prompts: Sequence[Sequence[int]], stop_ids: Sequence[int] = ()) -> list[Generation]:
        return [Generation(text, "stop", 2) for text, _ in zip(self.texts, prompts, strict=True)]

    def sequence_logprobs(
        self, prompts: Sequence[Sequence[int]], trie: TokenTrie, num_alike: int = 1
    ) -> NDArray[np.float64]:
        assert len(prompts) == len(self.logprobs)
        assert num_alike == 2
        return np.array(self.logprobs)


@pytest.fixture
def decode_pairs(tiny_base: Any, tiny_config: Callable[..., Any]) -> Callable[..., list[Decoding]]:
    """Function that decodes two queries; beta is better than alpha on train, by .5 to .44."""
    config = tiny_config("target=outcome", "objective=soft", "decoding=scored", "target.num_neighbours=2")
    targets = Targets(TargetKind.outcome, tuple(SCORED_NAMES), config.prompt.target)
    encoder = PairEncoder(tiny_base.tokenizer, config.prompt, targets, config.target, scored(), embed)

    def decode(answers: Answers, method: DecodingMethod, cost_weight: float = 0.0) -> list[Decoding]:
        decoding = replace(config.decoding, cost_weight=cost_weight)
        costs = {"alpha": 0.001, "beta": 0.002}
        decoder = Decoder(answers, encoder, decoding, config.objective, config.parsing, costs)  # type: ignore[arg-type]
        return decoder.decode(method, encoder.encode_prompts(["at 5", "at 33"]))

    return decode


def test_scored_pairs_predict_the_share_of_a_yes(decode_pairs: Callable[..., list[Decoding]]) -> None:
    shares = [(0.6, 0.2), (0.1, 0.3), (0.2, 0.2), (0.3, 0.3)]
    answers = Answers(logprobs=[(math.log(yes), math.log(no)) for yes, no in shares])
    first, second = decode_pairs(answers, DecodingMethod.scored)
    assert first.predicted == pytest.approx({"alpha": 0.75, "beta": 0.25})
    assert (first.route.candidate, first.generation.text) == ("alpha", "yes no")
    assert first.valid_mass == pytest.approx(0.6)
    # Of equal predictions that of the candidate which is better on train.
    assert second.predicted == pytest.approx({"alpha": 0.5, "beta": 0.5})
    assert second.route.candidate == "beta"
    # A cent is worth one: beta costs a tenth of one more.
    assert decode_pairs(answers, DecodingMethod.scored, 100.0)[1].route.candidate == "alpha"


@pytest.mark.parametrize(
    ("texts", "routes", "failures"),
    [
        ([" yes", " no", " no", " yes"], ["alpha", "beta"], [None, None]),
        ([" yes", " yes", " no", " no"], ["beta", "beta"], [None, None]),
        ([" yes", " alpha", "", " yes"], [None, None], ["unknown", "empty"]),
    ],
)
def test_generated_answers_call_the_best_candidate_with_a_yes(
    decode_pairs: Callable[..., list[Decoding]], texts: list[str], routes: list[str], failures: list[str]
) -> None:
    found = decode_pairs(Answers(texts), DecodingMethod.free)
    assert [decoding.route.candidate for decoding in found] == routes
    assert [decoding.route.failure for decoding in found] == failures
    assert found[0].generation.text == f"{texts[0].strip()} {texts[1].strip()}"
    assert found[0].generation.num_tokens == 4
