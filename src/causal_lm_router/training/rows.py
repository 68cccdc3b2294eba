"""Training rows: encoded once into an Arrow cache, collated into micro-batches."""

import hashlib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch

from causal_lm_router.data.labels import utilities
from causal_lm_router.files import write_folder
from causal_lm_router.prompting.encoder import Encoder, logger
from causal_lm_router.routing import RoutingExample
from causal_lm_router.terminal import progress_bar

IGNORED = -100
CHUNK = 1000


@dataclass(frozen=True)
class Supervision:
    """What a training row says besides its prompt: the label's target, or the utility of every candidate.

    `cost_weight` takes costs (USD) off the scores; `undecided_weight` weighs queries whose candidates all score alike.
    `supervised` names the candidates that rows may speak of, None allows all.
    """

    with_target: bool = True
    cost_weight: float = 0.0
    undecided_weight: float = 1.0
    supervised: tuple[str, ...] | None = None

    def utilities(self, example: RoutingExample) -> list[float]:
        """Return score - cost_weight * cost of every candidate, in pool order; none where the target is supervised.

        Of a candidate that is not supervised it is NaN.
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

    Columns: `input_ids` (prompt, and with a target also that, its end token included), `num_tokens`,
    `num_target_tokens` (0 without target), `weight`, `utilities` (a number per candidate; none with a target),
    `was_cut`.
    The rows never stand in Python lists as a whole: they are encoded in chunks and written through.
    """
    supervision = supervision or Supervision()
    folder = cache / "encoded" / _content_hash(examples, labels, encoder, supervision)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        datasets.disable_progress_bars()  # ours counts queries
        kwargs = {"examples": examples, "labels": labels, "encoder": encoder, "supervision": supervision}
        with tempfile.TemporaryDirectory(dir=folder.parent) as building:
            rows = datasets.Dataset.from_generator(
                _encoded_rows, features=_FEATURES, gen_kwargs=kwargs, cache_dir=building, fingerprint=folder.name
            )
            try:
                with write_folder(folder) as temporary:
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
        "utilities": datasets.List(datasets.Value("float32")),
        "was_cut": datasets.Value("bool"),
    }
)


def _content_hash(
    examples: Sequence[RoutingExample], labels: Mapping[str, str], encoder: Encoder, supervision: Supervision
) -> str:
    digest = hashlib.sha256(f"{encoder.fingerprint}{supervision}".encode())
    for example in examples:
        supervised = (encoder.targets.number_of(example, labels[example.query_id]), supervision.utilities(example))
        digest.update(f"\0{example.query}\0{supervised}\0{example.is_undecided()}".encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


def _encoded_rows(
    examples: Sequence[RoutingExample], labels: Mapping[str, str], encoder: Encoder, supervision: Supervision
) -> Iterator[dict[str, Any]]:
    targets = list(encoder.target_ids.values())
    bar = progress_bar(name="encoding training queries", unit="queries", total=len(examples))
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        for example, prompt in zip(
            chunk, encoder.encode_prompts([e.query for e in chunk], supervision.supervised), strict=True
        ):
            number = encoder.targets.number_of(example, labels[example.query_id])
            target = targets[number] if supervision.with_target else []
            yield {
                "input_ids": prompt.input_ids + target,
                "num_tokens": len(prompt.input_ids) + len(target),
                "num_target_tokens": len(target),
                "weight": supervision.undecided_weight if example.is_undecided() else 1.0,
                "utilities": supervision.utilities(example),
                "was_cut": prompt.was_cut,
            }
            bar.update()
    bar.close()


def collate(rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Return one micro-batch, padded on the left so that all targets end at the last position.

    Returns:
        `input_ids_BT`, `attention_mask_BT`, `position_ids_BT` (int64; positions count from a row's first real token),
        `weights_B` (float32), `labels_BK` (int64): the last K positions, K the longest target of the batch, -100 where
        a position belongs to a prompt or to padding, `utilities_BC` (float32), of no columns where the
        target is trained, and `hidden_BTD` where the rows hold the `hidden` states of their tokens.
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
        "utilities_BC": torch.tensor([[float(utility) for utility in row["utilities"]] for row in rows]),
    }


def _collate_hidden(rows: Sequence[Mapping[str, Any]], num_positions: int) -> dict[str, torch.Tensor]:
    if "hidden" not in rows[0]:
        return {}
    first = rows[0]["hidden"]
    hidden_BTD = torch.zeros((len(rows), num_positions, first.shape[-1]), dtype=first.dtype)
    for index, row in enumerate(rows):
        hidden_BTD[index, -len(row["hidden"]) :] = row["hidden"]
    return {"hidden_BTD": hidden_BTD}
