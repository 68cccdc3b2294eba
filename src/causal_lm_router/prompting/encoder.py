"""From text to token ids: prompts are cut to length, targets are kept complete."""

import hashlib
import inspect
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from causal_lm_router.config import CutSide, PromptConfig
from causal_lm_router.files.source_code import code_alone
from causal_lm_router.prompting.prompt import PromptFormat
from causal_lm_router.prompting.targets import Targets
from causal_lm_router.prompting.token_trie import TokenTrie, make_trie

logger = logging.getLogger(__name__)

CUT_MARK = " ... "
"""Stands where the middle of a query was cut out."""
LEAST_QUERY_TOKENS = 8
"""Room that a prompt must have for its query."""


@dataclass(frozen=True)
class EncodedPrompt:
    """Token ids of a prompt, and whether its query was cut to fit.

    Where each candidate is asked for by itself, `pairs` holds the prompts of all candidates and `input_ids` the first.
    """

    input_ids: list[int]
    was_cut: bool
    pairs: tuple[list[int], ...] = ()


class Encoder:
    """Prompts and targets of one pool in the tokens of one base model; the same for training and inference.

    `targets` are those of the pool. Every prompt leaves room for the longest target, so that a prompt does not depend
    on its label. A special token's text inside a query is encoded as plain text.

    Raises:
        ValueError: `prompt.max_length` has no room for the query, or a target is a token that the tokenizer lacks.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: PromptConfig,
        targets: Targets,
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.targets = targets
        self.format = self._make_format()
        texts = zip(self.targets.shown, self.targets.texts, strict=True)
        self.target_ids = {shown: self._encode_target(text) for shown, text in texts}
        longest = max(len(ids) for ids in self.target_ids.values())
        self.max_prompt_tokens = config.max_length - longest
        # Only the query is ever cut, so everything else has to fit with some tokens to spare.
        fixed = len(self._ids([self._longest_empty_prompt()])[0])
        if fixed + LEAST_QUERY_TOKENS > self.max_prompt_tokens:
            taken = fixed + longest
            raise ValueError(
                f"prompt.max_length must be at least {taken + LEAST_QUERY_TOKENS}, since instruction and longest "
                f"target take {taken} tokens, got {config.max_length}"
            )

    def _make_format(self) -> PromptFormat:
        return PromptFormat(
            self.config.template, self.targets, self.config.neutralise_markers, self.config.shuffle_seed
        )

    @cached_property
    def trie(self) -> TokenTrie:
        """The token trie of the targets, in their order."""
        return make_trie(list(self.target_ids.values()))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Token ids that end a generation and belong to its text: the targets, where each is one token."""
        return tuple(ids[-1] for ids in self.target_ids.values()) if self.targets.are_tokens else ()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything the token ids of a (query, label) pair depend on, the code that makes them included."""
        code = [
            code_alone(inspect.getsource(sys.modules[part.__module__])) for part in (PromptFormat, Targets, Encoder)
        ]
        backend = self.tokenizer.backend_tokenizer.to_str()
        settings = [
            code,
            backend,
            self.format.template,
            self.targets.texts,
            self.format.candidate_names,
            self.config.max_length,
        ]
        settings += [self.config.cut_side, self.config.neutralise_markers, self.config.shuffle_seed]
        settings += [self.targets.strong, self.tokenizer.eos_token_id]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def encode_prompts(
        self, queries: Sequence[str], listed: Sequence[str] | None = None, *, cut: bool = True
    ) -> list[EncodedPrompt]:
        """Return the prompt of every query in order, at most `max_prompt_tokens` long unless `cut` is false.

        Where the prompt lists candidates it lists those of `listed`, None meaning the pool.
        """
        # All at once: a fast tokenizer works on several rows in parallel.
        rows = self._ids([self.format.prompt_text(query, listed) for query in queries])
        return [
            EncodedPrompt(ids, False)
            if len(ids) <= self.max_prompt_tokens or not cut
            # Framed before the cut: candidates may be shuffled by the query as it came.
            else EncodedPrompt(self._cut(query, [ids], [self.format.frame(query, listed)])[0], True)
            for query, ids in zip(queries, rows, strict=True)
        ]

    def example_prompt(self, query: str, candidate_name: str) -> str:
        """Return the text of a query's prompt, that for this candidate where each has its own."""
        return self.format.prompt_text(query)

    def _longest_empty_prompt(self) -> str:
        return self.format.prompt_text("")

    def _ids(self, texts: list[str]) -> list[list[int]]:
        encoded: list[list[int]] = self.tokenizer(texts, split_special_tokens=True)["input_ids"]
        return encoded

    def _encode_target(self, text: str) -> list[int]:
        if self.targets.are_tokens:
            return [self._new_token(text)]
        # Tokenizers may merge or split at the seam, so the target's tokens are those that follow the prompt's own.
        # The words right before the target are the same in every prompt, so they stand for the whole of it.
        tail = self.format.frame("")[1]
        prompt, whole = self._ids([tail, tail + text])
        if whole[: len(prompt)] == prompt and len(whole) > len(prompt):
            ids = whole[len(prompt) :]
        else:
            # The seam lies inside a token; there the target's own tokens are all there is.
            ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [*ids, self.tokenizer.eos_token_id]

    def _new_token(self, text: str) -> int:
        number = self.tokenizer.convert_tokens_to_ids(text)
        if not isinstance(number, int) or self.tokenizer.convert_ids_to_tokens(number) != text:
            raise ValueError(f"target: the tokenizer must be that of the extended base model, got one without {text!r}")
        return number

    def _cut(self, query: str, rows: list[list[int]], frames: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Return the prompts of one query in these frames, with the same part of it in each; `rows` are the uncut."""
        query = self.format.neutralise(query)
        options = {"add_special_tokens": False, "split_special_tokens": True, "return_offsets_mapping": True}
        offsets = self.tokenizer(query, **options)["offset_mapping"]
        # Cut by the tokens' places in the text, then encode the text: cut ids could differ from the ids of a text, and
        # the parts around the cut may take a few tokens more or less than before. So repeat until it fits.
        keep = len(offsets)
        while (longest := max(map(len, rows))) > self.max_prompt_tokens:
            keep = max(0, keep - (longest - self.max_prompt_tokens))
            shortened = self._shortened(query, offsets, keep)
            rows = self._ids([f"{head}{shortened}{tail}" for head, tail in frames])
        return rows

    def _shortened(self, query: str, offsets: list[tuple[int, int]], keep: int) -> str:
        if keep == 0:
            return ""
        if self.config.cut_side is CutSide.left:
            return query[offsets[-keep][0] :]
        # The beginning gets the odd token.
        front, back = keep - keep // 2, keep // 2
        end = query[offsets[-back][0] :] if back else ""
        return f"{query[: offsets[front - 1][1]]}{CUT_MARK}{end}"
