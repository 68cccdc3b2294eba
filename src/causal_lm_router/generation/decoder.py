"""Decoder: reads routes out of a base model by any of the decoding methods, with the weights its generator holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
from causal_lm_router.data.arrays import Floats
from causal_lm_router.generation.generator import Generator
from causal_lm_router.generation.trie_walks import greedy_search
from causal_lm_router.models.target_logprobs import score_log_odds
from causal_lm_router.prompting.encoder import EncodedPrompt, Encoder
from causal_lm_router.prompting.token_trie import reference_trie
from causal_lm_router.routing import Generation, ParsedRoute


@dataclass(frozen=True)
class Decoding:
    """What one method reads out for one prompt; `predicted` and `valid_mass` where it looks at every target.

    `predicted` is a number in 0..1 for every candidate: its predicted score after the objective `per_candidate`, else
    its share of the likelihood. `valid_mass` is the probability of generating any target at all.
    """

    generation: Generation
    route: ParsedRoute
    predicted: Mapping[str, float] | None = None
    valid_mass: float | None = None


class Decoder:
    """Reads routes by the decoding methods; the generator's weights are those loaded last.

    `mean_costs` (USD on train, by candidate) matter to `decoding.cost_weight` alone.
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
            raise ValueError(f"decoding.cost_weight={decoding.cost_weight}: costs are unknown, allowed is 0")
        self._predicts_scores = objective.kind is ObjectiveKind.per_candidate
        self._generator, self._encoder, self._parsing = generator, encoder, parsing
        self._decoding, self._objective = decoding, objective
        names = encoder.targets.candidate_names
        self._costs = np.array([mean_costs[name] if mean_costs else 0.0 for name in names])

    def decode(self, method: DecodingMethod, prompts: Sequence[EncodedPrompt]) -> list[Decoding]:
        """Return what the method reads out for every prompt, in order."""
        ids = [prompt.input_ids for prompt in prompts]
        match method:
            case DecodingMethod.free:
                return [
                    self._parsed(generation) for generation in self._generator.generate(ids, self._encoder.stop_ids)
                ]
            case DecodingMethod.constrained:
                generations = self._generator.generate_constrained(ids, self._encoder.trie)
                return [self._parsed(generation) for generation in generations]
            case DecodingMethod.trie:
                numbers = greedy_search(self._generator.next_logprobs, ids, self._encoder.trie)
                return [self._named(number) for number in numbers]
            case DecodingMethod.scored:
                return self._scored(ids)

    def _parsed(self, generation: Generation) -> Decoding:
        mode, threshold = self._parsing.mode, self._parsing.fuzzy_threshold
        return Decoding(generation, self._encoder.targets.parse(generation, mode, threshold))

    def _named(self, number: int, logprob: float | None = None) -> Decoding:
        targets = self._encoder.targets
        num_tokens = len(self._encoder.trie.sequences[number])
        generation = Generation(targets.shown[number], "stop", num_tokens, logprob)
        return Decoding(generation, ParsedRoute(targets.candidates[number]))

    def _scored(self, prompts: Sequence[Sequence[int]]) -> list[Decoding]:
        """The candidate of the highest prediction, with the likeliest of its targets as the text."""
        names = self._encoder.targets.candidate_names
        logprobs, predicted = self._predict(prompts)
        stands_for = np.array([names.index(name) for name in self._encoder.targets.candidates])
        routes = (predicted - self._decoding.cost_weight * self._costs).argmax(axis=1)
        decodings = []
        for row, values, route in zip(logprobs, predicted, routes, strict=True):
            number = int(np.where(stands_for == route, row, -np.inf).argmax())
            named = self._named(number, float(row[number]))
            by_name = dict(zip(names, map(float, values), strict=True))
            mass = float(np.exp(row).sum())
            decodings.append(Decoding(named.generation, named.route, by_name, mass))
        return decodings

    def _predict(self, prompts: Sequence[Sequence[int]]) -> tuple[Floats, Floats]:
        """The log-probability of every target and the prediction of every candidate, each a row per prompt."""
        if self._predicts_scores:
            ends = self._encoder.tokenizer.eos_token_id
            found = self._generator.sequence_logprobs(prompts, reference_trie(self._encoder.trie.sequences, ends))
            return found[:, :-1], expit(score_log_odds(found, self._objective.reference_offset))
        logprobs = self._generator.sequence_logprobs(prompts, self._encoder.trie)
        shares = softmax(self._normalised(logprobs), axis=1)
        targets = self._encoder.targets
        stands_for = [[candidate == name for name in targets.candidate_names] for candidate in targets.candidates]
        return logprobs, shares @ np.array(stands_for, dtype=np.float64)

    def _normalised(self, logprobs: Floats) -> Floats:
        match self._decoding.normalisation:
            case Normalisation.sum:
                return logprobs
            case Normalisation.mean:
                return logprobs / [len(sequence) for sequence in self._encoder.trie.sequences]
            case Normalisation.prior:
                empty = self._encoder.encode_prompts([""])[0].input_ids
                return logprobs - self._generator.sequence_logprobs([empty], self._encoder.trie)
