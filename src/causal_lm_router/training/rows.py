"""Training rows: encoded once into an Arrow cache, collated into micro-batches."""

import hashlib
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import torch
from torch import Tensor

from causal_lm_router.data.labels import utilities
from causal_lm_router.files.checksums import make_cached
from causal_lm_router.prompting.encoder import EncodedPrompt, Encoder
from causal_lm_router.prompting.targets import Targets
from causal_lm_router.routing import RoutingExample
from causal_lm_router.terminal import progress_bar

IGNORED = -100
CHUNK = 1000


@dataclass(frozen=True)
class Supervision:
    """What a training row teaches after its prompt: the target of its label, or the utility of every candidate.

    `cost_weight` is what a USD of cost takes off a score. `undecided_weight` is the weight of queries on which all
    candidates score the same; others have 1. `balance_targets` weighs each query by the inverse share of those whose
    target stands for the same candidate. `supervised` names the candidates that are taught, None means all.

    With a target, `whole_row` teaches the prompt too, without `end_token` the target's end is not taught, and
    `cut_rows` cuts the row at its right end instead of the query.
    """

    with_target: bool = True
    cost_weight: float = 0.0
    undecided_weight: float = 1.0
    balance_targets: bool = False
    supervised: tuple[str, ...] | None = None
    whole_row: bool = False
    end_token: bool = True
    cut_rows: bool = False

    def utilities(self, example: RoutingExample) -> list[float]:
        """Return score - cost_weight * cost of every candidate, in pool order, NaN for one that is not supervised.

        Where the target is supervised the list is empty.
        """
        if self.with_target:
            return []
        values = zip(example.scores, utilities(example, self.cost_weight), strict=True)
        return [utility if self.supervised is None or name in self.supervised else math.nan for name, utility in values]


def encode_examples(
    examples: Sequence[RoutingExample],
    labels: Mapping[str, str],
    encoder: Encoder,
    cache: Path,
    supervision: Supervision | None = None,
) -> datasets.Dataset:
    """Return training rows as a memory-mapped Arrow dataset, cached in a folder named by their content.

    Columns: `input_ids` (the prompt; where the target is supervised also the target with its end token), `num_tokens`,
    `num_target_tokens` (how many of the last tokens are taught, 0 without target), `weight`, `utilities` (a number per
    candidate; empty with a target), `was_cut`. Where each candidate is asked for by itself, a query has a row for each
    that is supervised, one after another, with a utility of its own. Rows are encoded in chunks and written to disk as
    they come, so memory does not grow with their number.
    """
    supervision = supervision or Supervision()
    folder = cache / "encoded" / _content_hash(examples, labels, encoder, supervision)
    # A tuple, since the library takes each item of a list for a part of the data and generates it alone.
    kwargs = {"examples": tuple(examples), "labels": labels, "encoder": encoder, "supervision": supervision}

    def make(temporary: Path) -> None:
        datasets.disable_progress_bars()  # ours counts queries
        # The library's own cache would keep a second copy, so it builds in a folder that goes.
        building = temporary / "building"
        rows = datasets.Dataset.from_generator(
            _encoded_rows, features=_FEATURES, gen_kwargs=kwargs, cache_dir=str(building), fingerprint=folder.name
        )
        rows.save_to_disk(str(temporary / "rows"))
        del rows
        shutil.rmtree(building)

    make_cached(folder, make)
    return datasets.load_from_disk(str(folder / "rows"))


_FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "num_tokens": datasets.Value("int32"),
        "num_target_tokens": datasets.Value("int32"),
        "weight": datasets.Value("float32"),
        "utilities": datasets.List(datasets.Value("float32")),
        "was_cut": datasets.Value("bool"),
    }
)


def _content_hash(
    examples: Sequence[RoutingExample], labels: Mapping[str, str], encoder: Encoder, supervision: Supervision
) -> str:
    digest = hashlib.sha256(f"{encoder.fingerprint}{supervision}".encode())
    # Only what a row is made of: the same query with another id or task gives the same row.
    for example in examples:
        supervised = (encoder.targets.number_of(example, labels[example.query_id]), supervision.utilities(example))
        digest.update(f"\0{example.query}\0{supervised}\0{example.is_undecided()}".encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


def balance(examples: Sequence[RoutingExample], labels: Mapping[str, str], targets: Targets) -> dict[str, float]:
    """Return candidate -> weight of the queries whose target stands for it: their sums are equal, the mean is 1."""
    counts = Counter(targets.candidates[targets.number_of(one, labels[one.query_id])] for one in examples)
    return {name: len(examples) / len(counts) / count for name, count in counts.items()}


def _encoded_rows(
    examples: Sequence[RoutingExample], labels: Mapping[str, str], encoder: Encoder, supervision: Supervision
) -> Iterator[dict[str, Any]]:
    targets = list(encoder.target_ids.values())
    factors = balance(examples, labels, encoder.targets) if supervision.balance_targets else {}
    bar = progress_bar(name="encoding training queries", unit="queries", total=len(examples))
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        # A prompt that lists candidates lists those that are taught: the others are not to be known in training.
        queries = [example.query for example in chunk]
        prompts = encoder.encode_prompts(queries, supervision.supervised, cut=not supervision.cut_rows)
        for example, prompt in zip(chunk, prompts, strict=True):
            number = encoder.targets.number_of(example, labels[example.query_id])
            target = targets[number] if supervision.with_target else []
            if not supervision.end_token:
                target = target[:-1]
            for prompt_ids, utilities_of_row in _split_pairs(prompt, supervision.utilities(example)):
                ids = prompt_ids + target
                num_cut = max(0, len(ids) - encoder.config.max_length) if supervision.cut_rows else 0
                ids = ids[: len(ids) - num_cut]
                yield {
                    "input_ids": ids,
                    "num_tokens": len(ids),
                    # The first token follows nothing that could predict it.
                    "num_target_tokens": len(ids) - 1 if supervision.whole_row else max(0, len(target) - num_cut),
                    "weight": factors.get(encoder.targets.candidates[number], 1.0)
                    * (supervision.undecided_weight if example.is_undecided() else 1.0),
                    "utilities": utilities_of_row,
                    "was_cut": prompt.was_cut or num_cut > 0,
                }
            bar.update()
    bar.close()


def _split_pairs(prompt: EncodedPrompt, utilities_C: list[float]) -> list[tuple[list[int], list[float]]]:
    """Return the rows of a query as prompt and utilities: one, or one for each candidate that is supervised."""
    if not prompt.pairs:
        return [(prompt.input_ids, utilities_C)]
    supervised = [[utility] for utility in utilities_C if not math.isnan(utility)]
    return list(zip(prompt.pairs, supervised, strict=True))


class MicroBatch(NamedTuple):
    """Some rows of one forward and backward pass, padded on the left so that all targets end at the last position.

    Shapes: B rows, T positions, K the longest target of the rows, C candidates, D the width of the base model.

    A tuple, since Lightning's reduced precision looks for tensors inside and writes the fields of other classes anew.
    """

    input_ids: Tensor
    """[B, T], int64: prompt and target, the padding token before them."""
    attention_mask: Tensor
    """[B, T], int64: 1 at the row's tokens, 0 at padding."""
    position_ids: Tensor
    """[B, T], int64: position of a token in its row, counted from the row's first one; 0 at padding."""
    labels: Tensor
    """[B, K], int64: what the last K positions hold, IGNORED where that is no part of the target."""
    weights: Tensor
    """[B], float32: weight of each row in the loss."""
    utilities: Tensor
    """[B, C], float32: utility of each candidate, NaN where it is not supervised; C is 0 where the target is, and 1
    where each candidate has a row of its own."""
    hidden_states: Tensor | None = None
    """[B, T, D]: output of the frozen layers, 0 at padding; None where the model starts from `input_ids`."""

    def to(self, device: torch.device) -> "MicroBatch":
        """Return the micro-batch with all tensors on a device."""
        moved = {
            name: field.to(device, non_blocking=True) for name, field in self._asdict().items() if field is not None
        }
        return MicroBatch(**moved)

    def model_inputs(self) -> dict[str, Tensor]:
        """Return the model's keyword arguments: it starts from `hidden_states` where there are any."""
        start = {"input_ids": self.input_ids} if self.hidden_states is None else {"inputs_embeds": self.hidden_states}
        return {**start, "attention_mask": self.attention_mask, "position_ids": self.position_ids}


def collate(rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> MicroBatch:
    """Return rows as one micro-batch; they are those of `encode_examples`, `hidden_states` [tokens, D] may be added."""
    num_positions = max(len(row["input_ids"]) for row in rows)
    num_target = max(row["num_target_tokens"] for row in rows)
    # All is padding first; then each row fills its right end.
    input_ids_BT = torch.full((len(rows), num_positions), pad_token_id)
    attention_mask_BT = torch.zeros((len(rows), num_positions), dtype=torch.long)
    labels_BK = torch.full((len(rows), num_target), IGNORED)
    for index, row in enumerate(rows):
        ids = torch.as_tensor(row["input_ids"], dtype=torch.long)
        input_ids_BT[index, -len(ids) :] = ids
        # By length and not by value: the padding token may be the end token, which every target holds.
        attention_mask_BT[index, -len(ids) :] = 1
        if target := row["num_target_tokens"]:
            labels_BK[index, -target:] = ids[-target:]
    return MicroBatch(
        input_ids=input_ids_BT,
        attention_mask=attention_mask_BT,
        # Padding would count to -1; the model needs a valid position there, though no token attends to it.
        position_ids=(attention_mask_BT.cumsum(dim=1) - 1).clamp(min=0),
        labels=labels_BK,
        weights=torch.tensor([float(row["weight"]) for row in rows]),
        utilities=torch.tensor([[float(utility) for utility in row["utilities"]] for row in rows]),
        hidden_states=_collate_hidden_states(rows, num_positions),
    )


def _collate_hidden_states(rows: Sequence[Mapping[str, Any]], num_positions: int) -> Tensor | None:
    if "hidden_states" not in rows[0]:
        return None
    first = rows[0]["hidden_states"]
    hidden_BTD = torch.zeros((len(rows), num_positions, first.shape[-1]), dtype=first.dtype)
    for index, row in enumerate(rows):
        hidden_BTD[index, -len(row["hidden_states"]) :] = row["hidden_states"]
    return hidden_BTD
