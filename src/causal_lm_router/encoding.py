"""Text to token ids and labels: prompts cut to length, targets kept whole, training rows in an Arrow cache.

Shape suffixes: B rows of a batch, T positions, K the last positions, which hold every target of the batch.
"""

import hashlib
import inspect
import json
import logging
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PreTrainedTokenizerBase

from causal_lm_router.atomic import atomic_folder
from causal_lm_router.config import CutSide, PromptConfig
from causal_lm_router.labels import worths
from causal_lm_router.prompt import PromptFormat
from causal_lm_router.routing import RoutingExample
from causal_lm_router.targets import TargetKind, Targets
from causal_lm_router.trie import TokenTrie, make_trie

logger = logging.getLogger(__name__)

IGNORED = -100
CHUNK = 1000
MANY = 50_000  # rows that take long enough to show a progress bar for
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
        code = [inspect.getsource(sys.modules[part.__module__]) for part in (PromptFormat, Targets, Encoder)]
        backend = self.tokenizer.backend_tokenizer.to_str()
        settings = [code, backend, self.format.template, self.targets.texts, self.format.names, self.config.max_length]
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
        query = self.format.neutralised(query)
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


@dataclass(frozen=True)
class Teaching:
    """What a training row says besides its prompt: the label's target, or the worth of every candidate.

    `cost_weight` takes costs (USD) off the scores; `undecided_weight` weighs queries whose candidates all score alike.
    `taught` names the candidates that rows may speak of, None allows all.
    """

    with_target: bool = True
    cost_weight: float = 0.0
    undecided_weight: float = 1.0
    taught: tuple[str, ...] | None = None

    def worths(self, example: RoutingExample) -> list[float]:
        """Return score - cost_weight * cost of every candidate, in pool order; none where the target is taught.

        Of a candidate that is not taught it is NaN.
        """
        if self.with_target:
            return []
        values = zip(example.scores, worths(example, self.cost_weight), strict=True)
        return [worth if self.taught is None or name in self.taught else math.nan for name, worth in values]


def encode_examples(
    examples: Sequence[RoutingExample],
    labels: Mapping[str, str],
    encoder: Encoder,
    cache: Path,
    teaching: Teaching | None = None,
) -> datasets.Dataset:
    """Return training rows as a memory-mapped Arrow dataset, cached in a folder named by their content.

    Columns: `input_ids` (prompt, and with a target also that, its end token included), `num_tokens`,
    `num_target_tokens` (0 without target), `weight`, `worths` (a number per candidate; none with a target), `was_cut`.
    The rows never stand in Python lists as a whole: they are encoded in chunks and written through.
    """
    teaching = teaching or Teaching()
    folder = cache / "encoded" / _content_hash(examples, labels, encoder, teaching)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        if len(examples) < MANY:
            datasets.disable_progress_bars()
        kwargs = {"examples": examples, "labels": labels, "encoder": encoder, "teaching": teaching}
        with tempfile.TemporaryDirectory(dir=folder.parent) as building:
            rows = datasets.Dataset.from_generator(
                _encoded_rows, features=_FEATURES, gen_kwargs=kwargs, cache_dir=building, fingerprint=folder.name
            )
            try:
                with atomic_folder(folder) as temporary:
                    rows.save_to_disk(str(temporary / "rows"))
            except FileExistsError:
                logger.info("another process encoded %s meanwhile", folder)
    return datasets.load_from_disk(str(folder / "rows"))


_FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "num_tokens": datasets.Value("int32"),
        "num_target_tokens": datasets.Value("int32"),
        "weight": datasets.Value("float32"),
        "worths": datasets.List(datasets.Value("float32")),
        "was_cut": datasets.Value("bool"),
    }
)


def _content_hash(
    examples: Sequence[RoutingExample], labels: Mapping[str, str], encoder: Encoder, teaching: Teaching
) -> str:
    digest = hashlib.sha256(f"{encoder.fingerprint}{teaching}".encode())
    for example in examples:
        taught = (encoder.targets.number_of(example, labels[example.query_id]), teaching.worths(example))
        digest.update(f"\0{example.query}\0{taught}\0{example.is_undecided()}".encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


def _encoded_rows(
    examples: Sequence[RoutingExample], labels: Mapping[str, str], encoder: Encoder, teaching: Teaching
) -> Iterator[dict[str, Any]]:
    targets = list(encoder.target_ids.values())
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        for example, prompt in zip(
            chunk, encoder.encode_prompts([e.query for e in chunk], teaching.taught), strict=True
        ):
            number = encoder.targets.number_of(example, labels[example.query_id])
            target = targets[number] if teaching.with_target else []
            yield {
                "input_ids": prompt.input_ids + target,
                "num_tokens": len(prompt.input_ids) + len(target),
                "num_target_tokens": len(target),
                "weight": teaching.undecided_weight if example.is_undecided() else 1.0,
                "worths": teaching.worths(example),
                "was_cut": prompt.was_cut,
            }


def collate(rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Return one micro-batch, padded on the left so that all targets end at the last position.

    Returns:
        `input_ids_BT`, `attention_mask_BT`, `position_ids_BT` (int64; positions count from a row's first real token),
        `weights_B` (float32), `labels_BK` (int64): the last K positions, K the longest target of the batch, -100 where
        a position belongs to a prompt or to padding, `worths_BC` (float32), of no columns where targets are taught, and
        `hidden_BTD` where the rows hold the `hidden` states of their tokens.
    """
    num_positions = max(len(row["input_ids"]) for row in rows)
    num_target = max(row["num_target_tokens"] for row in rows)
    input_ids_BT = torch.full((len(rows), num_positions), pad_token_id)
    attention_mask_BT = torch.zeros((len(rows), num_positions), dtype=torch.long)
    labels_BK = torch.full((len(rows), num_target), IGNORED)
    for index, row in enumerate(rows):
        ids = torch.as_tensor(row["input_ids"], dtype=torch.long)
        input_ids_BT[index, -len(ids) :] = ids
        attention_mask_BT[index, -len(ids) :] = 1
        if target := row["num_target_tokens"]:
            labels_BK[index, -target:] = ids[-target:]
    return {
        **_collate_hidden(rows, num_positions),
        "input_ids_BT": input_ids_BT,
        "attention_mask_BT": attention_mask_BT,
        "position_ids_BT": (attention_mask_BT.cumsum(dim=1) - 1).clamp(min=0),
        "weights_B": torch.tensor([float(row["weight"]) for row in rows]),
        "labels_BK": labels_BK,
        "worths_BC": torch.tensor([[float(worth) for worth in row["worths"]] for row in rows]),
    }


def _collate_hidden(rows: Sequence[Mapping[str, Any]], num_positions: int) -> dict[str, torch.Tensor]:
    if "hidden" not in rows[0]:
        return {}
    first = rows[0]["hidden"]
    hidden_BTD = torch.zeros((len(rows), num_positions, first.shape[-1]), dtype=first.dtype)
    for index, row in enumerate(rows):
        hidden_BTD[index, -len(row["hidden"]) :] = row["hidden"]
    return {"hidden_BTD": hidden_BTD}
