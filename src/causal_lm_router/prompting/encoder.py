"""Text to token ids and labels: prompts cut to length, targets kept whole, training rows in an Arrow cache.

Shape suffixes: B rows of a batch, T positions, K the last positions, which hold every target of the batch.
"""

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
from causal_lm_router.config.prompting import TargetKind
from causal_lm_router.files import code_alone
from causal_lm_router.prompting.prompt import PromptFormat
from causal_lm_router.prompting.targets import Targets
from causal_lm_router.prompting.token_trie import TokenTrie, make_trie

logger = logging.getLogger(__name__)

CUT_MARK = " ... "


@dataclass(frozen=True)
class EncodedPrompt:
    """Token ids of a prompt, and whether its query was cut to fit."""

    input_ids: list[int]
    was_cut: bool


class Encoder:
    """Prompts and targets of one pool in the tokens of one base model; the same for training and inference.

    `targets` are those of the pool, or the pool's names where these are generated.

    Room for the longest target of the pool is kept free in every prompt, so that a prompt does not depend on its label.
    Text inside a query is never read as a special token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: PromptConfig,
        targets: Targets | Sequence[str],
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        if not isinstance(targets, Targets):
            targets = Targets(TargetKind.name, tuple(targets), config.target)
        self.targets = targets
        self.format = PromptFormat(config.template, self.targets, config.neutralise_markers, config.shuffle_seed)
        texts = zip(self.targets.shown, self.targets.texts, strict=True)
        self.target_ids = {shown: self._encode_target(text) for shown, text in texts}
        longest = max(len(ids) for ids in self.target_ids.values())
        self.max_prompt_tokens = config.max_length - longest
        fixed = len(self._ids([self.format.prompt_text("")])[0])
        if fixed + 8 > self.max_prompt_tokens:
            taken = fixed + longest
            raise ValueError(
                f"prompt.max_length={config.max_length}: instruction and longest target take {taken} tokens, "
                f"allowed is at least {taken + 8}"
            )

    @cached_property
    def trie(self) -> TokenTrie:
        """The token trie of the targets, in their order."""
        return make_trie(list(self.target_ids.values()))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Token ids that end a generation and belong to its text: the targets, where each is one new token."""
        return tuple(ids[-1] for ids in self.target_ids.values()) if self.targets.are_tokens else ()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything the encoding of a (query, label) pair depends on, the code that does it included."""
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

    def encode_prompts(self, queries: Sequence[str], listed: Sequence[str] | None = None) -> list[EncodedPrompt]:
        """Return the prompt of every query in order, at most `max_prompt_tokens` long.

        Where the prompt lists candidates it lists those of `listed`, None meaning the pool.
        """
        rows = self._ids([self.format.prompt_text(query, listed) for query in queries])
        return [
            EncodedPrompt(ids, False)
            if len(ids) <= self.max_prompt_tokens
            else EncodedPrompt(self._cut(query, ids, listed), True)
            for query, ids in zip(queries, rows, strict=True)
        ]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        encoded: list[list[int]] = self.tokenizer(texts, split_special_tokens=True)["input_ids"]
        return encoded

    def _encode_target(self, text: str) -> list[int]:
        if self.targets.are_tokens:
            return [self._new_token(text)]
        # Tokenisers may merge or split at the seam, so the target's tokens are those that follow the prompt's own.
        tail = self.format.frame("")[1]
        prompt, whole = self._ids([tail, tail + text])
        if whole[: len(prompt)] == prompt and len(whole) > len(prompt):
            ids = whole[len(prompt) :]
        else:
            ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [*ids, self.tokenizer.eos_token_id]

    def _new_token(self, text: str) -> int:
        number = self.tokenizer.convert_tokens_to_ids(text)
        if not isinstance(number, int) or self.tokenizer.convert_ids_to_tokens(number) != text:
            raise ValueError(
                f"target: the tokenizer has no token {text!r}; it has to be that of the extended base model"
            )
        return number

    def _cut(self, query: str, ids: list[int], listed: Sequence[str] | None) -> list[int]:
        head, tail = self.format.frame(query, listed)
        query = self.format.neutralise(query)
        options = {"add_special_tokens": False, "split_special_tokens": True, "return_offsets_mapping": True}
        offsets = self.tokenizer(query, **options)["offset_mapping"]
        keep = len(offsets)
        while len(ids) > self.max_prompt_tokens:
            keep = max(0, keep - (len(ids) - self.max_prompt_tokens))
            ids = self._ids([f"{head}{self._shortened(query, offsets, keep)}{tail}"])[0]
        return ids

    def _shortened(self, query: str, offsets: list[tuple[int, int]], keep: int) -> str:
        if keep == 0:
            return ""
        if self.config.cut_side is CutSide.left:
            return query[offsets[-keep][0] :]
        front, back = keep - keep // 2, keep // 2
        end = query[offsets[-back][0] :] if back else ""
        return f"{query[: offsets[front - 1][1]]}{CUT_MARK}{end}"
