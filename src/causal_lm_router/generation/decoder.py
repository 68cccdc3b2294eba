"""Decoder: turns prompts into routes with any of the decoding methods, over the weights that its generator holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from scipy.special import expit, softmax

from causal_lm_router.config import (
    DecodingConfig,
    DecodingMethod,
    Normalisation,
    ObjectiveConfig,
    ObjectiveKind,
    ParsingConfig,
)
from causal_lm_router.config.own_code import load_function
from causal_lm_router.data.arrays import Floats
from causal_lm_router.generation.generator import Generator
from causal_lm_router.generation.trie_walks import greedy_search
from causal_lm_router.models.target_logprobs import score_log_odds
from causal_lm_router.prompting.encoder import EncodedPrompt, Encoder
from causal_lm_router.prompting.pair_encoder import PairEncoder
from causal_lm_router.prompting.targets import YES, say_outcome
from causal_lm_router.prompting.token_trie import reference_trie
from causal_lm_router.routing import Generation, ParsedRoute


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """The result of one method for one prompt; `predicted` and `valid_mass` only from methods that score every target.

    `predicted` is a number in 0..1 for every candidate: its predicted score after the objective `per_candidate` and
    with the target `outcome`, else its share of the likelihood. `valid_mass` is the probability of generating any
    target at all.
    """

    generation: Generation
    route: ParsedRoute
    predicted: Mapping[str, float] | None = None
    valid_mass: float | None = None


class Decode(Protocol):
    """A decoding of the user's own, for `decoding=own`."""

    def __call__(
        self,
        generator: Generator,
        encoder: Encoder,
        prompts: Sequence[Sequence[int]],
        options: Mapping[str, Any],
    ) -> list[Decoding]:
        """Return the result for every prompt, in order.

        Args:
            generator: generates and gives log-probabilities, with the weights that are evaluated.
            encoder: its `targets` are those of the pool, `trie` their token trie, `target_ids` their tokens.
            prompts: the prompts as token ids.
            options: `decoding.options`.
        """


class Decoder:
    """Decodes routes with the weights that were last loaded into the generator.

    `mean_costs` (USD on train, by candidate) are used for `decoding.cost_weight` only.

    Raises:
        ValueError: a cost weight is set but costs are unknown.
    """

    def __init__(
        self,
        generator: Generator,
        encoder: Encoder,
        decoding: DecodingConfig,
        objective: ObjectiveConfig,
        parsing: ParsingConfig,
        mean_costs: Mapping[str, float] | None,
    ) -> None:
        if decoding.cost_weight > 0 and mean_costs is None:
            raise ValueError(f"decoding.cost_weight must be 0 where costs are unknown, got {decoding.cost_weight}")
        self._predicts_scores = objective.kind is ObjectiveKind.per_candidate
        self._generator, self._encoder, self._parsing = generator, encoder, parsing
        self._decoding, self._objective = decoding, objective
        candidate_names = encoder.targets.candidate_names
        self._costs = np.array([mean_costs[name] if mean_costs else 0.0 for name in candidate_names])

    def decode(self, method: DecodingMethod, prompts: Sequence[EncodedPrompt]) -> list[Decoding]:
        """Return the method's result for every prompt, in order."""
        if isinstance(self._encoder, PairEncoder):
            pairs = [ids for prompt in prompts for ids in prompt.pairs]
            return self._score_pairs(pairs) if method is DecodingMethod.scored else self._ask_pairs(method, pairs)
        return self._decode(method, [prompt.input_ids for prompt in prompts])

    def _decode(self, method: DecodingMethod, ids: Sequence[Sequence[int]]) -> list[Decoding]:
        match method:
            case DecodingMethod.free:
                generations = self._generator.generate(ids, self._encoder.stop_ids)
                return [self._parse(generation) for generation in generations]
            case DecodingMethod.constrained:
                generations = self._generator.generate_constrained(ids, self._encoder.trie)
                return [self._parse(generation) for generation in generations]
            case DecodingMethod.trie:
                numbers = greedy_search(self._generator.next_logprobs, ids, self._encoder.trie)
                return [self._name_target(number) for number in numbers]
            case DecodingMethod.scored:
                return self._score(ids)
            case DecodingMethod.own:
                return self._decode_by_function(ids)

    def _score_pairs(self, pairs: Sequence[Sequence[int]]) -> list[Decoding]:
        """Return the candidate that most likely answers right, for the prompts of every query with each candidate."""
        targets, encoder = self._encoder.targets, self._encoder
        assert isinstance(encoder, PairEncoder)
        names = targets.candidate_names
        logprobs = self._generator.sequence_logprobs(pairs, encoder.trie, num_alike=len(names))
        predicted = expit(logprobs[:, 0] - logprobs[:, 1]).reshape(-1, len(names))
        masses = np.exp(logprobs).sum(axis=1).reshape(-1, len(names)).mean(axis=1)
        # Equal records give equal predictions: of these the candidate that is best on train.
        order = list(encoder.neighbours.best_first)
        values = (predicted - self._decoding.cost_weight * self._costs)[:, order]
        decodings = []
        for row, row_values, mass in zip(predicted, values, masses, strict=True):
            text = " ".join(say_outcome(share) for share in row)
            decodings.append(
                Decoding(
                    generation=Generation(text, "stop", len(names)),
                    route=ParsedRoute(names[order[int(row_values.argmax())]]),
                    predicted=dict(zip(names, map(float, row), strict=True)),
                    valid_mass=min(1.0, float(mass)),
                )
            )
        return decodings

    def _ask_pairs(self, method: DecodingMethod, pairs: Sequence[Sequence[int]]) -> list[Decoding]:
        """Return the candidate that is best on train of those whose answer is yes, of all where every one is no.

        A text that is neither is a parse failure of the query's route.
        """
        assert isinstance(self._encoder, PairEncoder)
        names, order = self._encoder.targets.candidate_names, self._encoder.neighbours.best_first
        answers = self._decode(method, pairs)
        decodings = []
        for start in range(0, len(answers), len(names)):
            own = answers[start : start + len(names)]
            generations = [answer.generation for answer in own]
            failures = [answer.route.failure for answer in own if answer.route.failure is not None]
            # In the order of their means, which keeps its order among equals: those with a yes come first.
            best = min(order, key=lambda column: own[column].route.candidate != YES)
            generation = Generation(
                text=" ".join(one.text.strip() for one in generations),
                finish_reason="stop",
                num_tokens=sum(one.num_tokens for one in generations),
            )
            route = ParsedRoute(None, failures[0]) if failures else ParsedRoute(names[best])
            decodings.append(Decoding(generation=generation, route=route))
        return decodings

    def _parse(self, generation: Generation) -> Decoding:
        mode, threshold = self._parsing.mode, self._parsing.fuzzy_threshold
        return Decoding(generation=generation, route=self._encoder.targets.parse(generation, mode, threshold))

    def _name_target(self, number: int, logprob: float | None = None) -> Decoding:
        """Return the target of this number as if it had been generated: it needs no parsing."""
        targets = self._encoder.targets
        num_tokens = len(self._encoder.trie.sequences[number])
        generation = Generation(targets.shown[number], "stop", num_tokens, logprob)
        return Decoding(generation=generation, route=ParsedRoute(targets.candidates[number]))

    def _decode_by_function(self, prompts: Sequence[Sequence[int]]) -> list[Decoding]:
        """Decode with the user's function, and check its results before they become routes."""
        config, candidate_names = self._decoding, self._encoder.targets.candidate_names
        assert config.function is not None, "the config is checked"
        decode: Decode = load_function("decoding.function", config.function, Decode)
        decodings = decode(self._generator, self._encoder, prompts, config.options)
        if len(decodings) != len(prompts) or not all(isinstance(one, Decoding) for one in decodings):
            raise ValueError(f"decoding.function must return a Decoding for each of {len(prompts)} prompts")
        for one in decodings:
            route, predicted = one.route.candidate, one.predicted
            if route not in (None, *candidate_names):
                raise ValueError(f"decoding.function must route to one of {candidate_names}, got {route!r}")
            if predicted is not None and predicted.keys() != set(candidate_names):
                raise ValueError(f"decoding.function must predict all of {candidate_names}, got {list(predicted)}")
        return decodings

    def _score(self, prompts: Sequence[Sequence[int]]) -> list[Decoding]:
        """Return the candidate of the highest prediction for every prompt, with its likeliest target as the text."""
        candidate_names = self._encoder.targets.candidate_names
        logprobs, predicted = self._predict(prompts)
        # Target -> column of its candidate: several targets can stand for one candidate (score classes).
        columns = np.array([candidate_names.index(name) for name in self._encoder.targets.candidates])
        # Costs change the route alone, not the predictions that are reported.
        routes = (predicted - self._decoding.cost_weight * self._costs).argmax(axis=1)
        decodings = []
        for row, values, route in zip(logprobs, predicted, routes, strict=True):
            number = int(np.where(columns == route, row, -np.inf).argmax())
            named = self._name_target(number, float(row[number]))
            by_name = dict(zip(candidate_names, map(float, values), strict=True))
            # Probabilities in float32 may sum up to a little more than 1.
            valid_mass = min(1.0, float(np.exp(row).sum()))
            decodings.append(replace(named, predicted=by_name, valid_mass=valid_mass))
        return decodings

    def _predict(self, prompts: Sequence[Sequence[int]]) -> tuple[Floats, Floats]:
        """Return the log-probability of every target and the prediction of every candidate, each a row per prompt."""
        # Scores: each target is compared with a reference, ending at once, which is the last column.
        if self._predicts_scores:
            ends = self._encoder.tokenizer.eos_token_id
            found = self._generator.sequence_logprobs(prompts, reference_trie(self._encoder.trie.sequences, ends))
            return found[:, :-1], expit(score_log_odds(found, self._objective.reference_offset))
        # Shares: a softmax over the targets, summed over the targets of each candidate.
        logprobs = self._generator.sequence_logprobs(prompts, self._encoder.trie)
        shares = softmax(self._normalise(logprobs), axis=1)
        targets = self._encoder.targets
        stands_for = [[candidate == name for name in targets.candidate_names] for candidate in targets.candidates]
        # Shares that are rounded may sum up to a little more than 1.
        return logprobs, np.minimum(shares @ np.array(stands_for, dtype=np.float64), 1.0)

    def _normalise(self, logprobs: Floats) -> Floats:
        match self._decoding.normalisation:
            case Normalisation.sum:
                return logprobs
            # Per token, so that long names are not less likely for their length alone.
            case Normalisation.mean:
                return logprobs / [len(sequence) for sequence in self._encoder.trie.sequences]
            # Relative to an empty query, so that names which the base model prefers anyway gain nothing.
            case Normalisation.prior:
                empty = self._encoder.encode_prompts([""])[0].input_ids
                return logprobs - self._generator.sequence_logprobs([empty], self._encoder.trie)
