"""Text to token ids and labels: prompts cut to length, targets kept whole, training rows in an Arrow cache.

Shape suffixes: B rows of a batch, T positions, K the last positions, which hold every target of the batch.
"""

import hashlib
import inspect
import json
import logging
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
from causal_lm_router.prompt import PromptFormat
from causal_lm_router.routing import RoutingExample

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

    Room for the longest target of the pool is kept free in every prompt, so that a prompt does not depend on its label.
    Text inside a query is never read as a special token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: PromptConfig, names: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.format = PromptFormat(config.template, config.target, tuple(names), config.neutralise_markers)
        self.target_ids = {name: self._encode_target(name) for name in names}
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
    def fingerprint(self) -> str:
        """Hash of everything the encoding of a (query, label) pair depends on, the code that does it included."""
        code = [inspect.getsource(sys.modules[part.__module__]) for part in (PromptFormat, Encoder)]
        backend = self.tokenizer.backend_tokenizer.to_str()
        settings = [code, backend, self.format.template, self.format.target, self.format.names, self.config.max_length]
        settings += [self.config.cut_side, self.config.neutralise_markers, self.tokenizer.eos_token_id]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def encode_prompts(self, queries: Sequence[str]) -> list[EncodedPrompt]:
        """Return the prompt of every query in order, at most `max_prompt_tokens` long."""
        rows = self._ids([self.format.prompt_text(query) for query in queries])
        return [
            EncodedPrompt(ids, False)
            if len(ids) <= self.max_prompt_tokens
            else EncodedPrompt(self._cut(query, ids), True)
            for query, ids in zip(queries, rows, strict=True)
        ]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        encoded: list[list[int]] = self.tokenizer(texts, split_special_tokens=True)["input_ids"]
        return encoded

    def _encode_target(self, name: str) -> list[int]:
        # Tokenisers may merge or split at the seam, so the target's tokens are those that follow the prompt's own.
        text = self.format.target_text(name)
        prompt, whole = self._ids([self.format.tail, self.format.tail + text])
        if whole[: len(prompt)] == prompt and len(whole) > len(prompt):
            ids = whole[len(prompt) :]
        else:
            ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [*ids, self.tokenizer.eos_token_id]

    def _cut(self, query: str, ids: list[int]) -> list[int]:
        query = self.format.neutralised(query)
        options = {"add_special_tokens": False, "split_special_tokens": True, "return_offsets_mapping": True}
        offsets = self.tokenizer(query, **options)["offset_mapping"]
        keep = len(offsets)
        while len(ids) > self.max_prompt_tokens:
            keep = max(0, keep - (len(ids) - self.max_prompt_tokens))
            ids = self._ids([f"{self.format.head}{self._shortened(query, offsets, keep)}{self.format.tail}"])[0]
        return ids

    def _shortened(self, query: str, offsets: list[tuple[int, int]], keep: int) -> str:
        if keep == 0:
            return ""
        if self.config.cut_side is CutSide.left:
            return query[offsets[-keep][0] :]
        front, back = keep - keep // 2, keep // 2
        end = query[offsets[-back][0] :] if back else ""
        return f"{query[: offsets[front - 1][1]]}{CUT_MARK}{end}"


def encode_examples(
    examples: Sequence[RoutingExample], labels: Mapping[str, str], encoder: Encoder, cache: Path
) -> datasets.Dataset:
    """Return training rows as a memory-mapped Arrow dataset, cached in a folder named by their content.

    Columns: `input_ids` (prompt, then target with eos), `num_tokens`, `num_target_tokens`, `was_cut`. The rows never
    stand in Python lists as a whole: they are encoded in chunks and written through.
    """
    folder = cache / "encoded" / _content_hash(examples, labels, encoder)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        if len(examples) < MANY:
            datasets.disable_progress_bars()
        kwargs = {"examples": examples, "labels": labels, "encoder": encoder}
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
        "was_cut": datasets.Value("bool"),
    }
)


def _content_hash(examples: Sequence[RoutingExample], labels: Mapping[str, str], encoder: Encoder) -> str:
    digest = hashlib.sha256(encoder.fingerprint.encode())
    for example in examples:
        digest.update(f"\0{example.query}\0{labels[example.query_id]}".encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


def _encoded_rows(
    examples: Sequence[RoutingExample], labels: Mapping[str, str], encoder: Encoder
) -> Iterator[dict[str, Any]]:
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        for example, prompt in zip(chunk, encoder.encode_prompts([e.query for e in chunk]), strict=True):
            target = encoder.target_ids[labels[example.query_id]]
            ids = prompt.input_ids + target
            lengths = {"num_tokens": len(ids), "num_target_tokens": len(target)}
            yield {"input_ids": ids, **lengths, "was_cut": prompt.was_cut}


def collate(rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Return one micro-batch, padded on the left so that all targets end at the last position.

    Returns:
        `input_ids_BT`, `attention_mask_BT`, `position_ids_BT` (int64; positions count from a row's first real token),
        and `labels_BK` (int64): the last K positions, K the longest target of the batch, -100 where a position belongs
        to a prompt or to padding.
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
        target = row["num_target_tokens"]
        labels_BK[index, -target:] = ids[-target:]
    position_ids_BT = (attention_mask_BT.cumsum(dim=1) - 1).clamp(min=0)
    return {
        "input_ids_BT": input_ids_BT,
        "attention_mask_BT": attention_mask_BT,
        "position_ids_BT": position_ids_BT,
        "labels_BK": labels_BK,
    }
