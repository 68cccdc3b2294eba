"""A base model with new tokens: a checkpoint in the cache, loaded by training and generation like any other."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from causal_lm_router.files import cache_dir, write_folder

logger = logging.getLogger(__name__)


def extend_base_model(
    source: str,
    revision: str | None,
    load: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]],
    new_tokens: Mapping[str, str],
) -> str:
    """Return the folder of a base model with `new_tokens` (token -> text) in its vocabulary, made where it is missing.

    `load` returns the base model that lies at `source` (hub name or folder, and revision), with its tokenizer.

    The embedding of a new token, and its row of the head where the two do not share weights, starts as the mean over
    the tokens of its text. The folder appears complete or not at all; its name is a hash of what it is made of.
    """
    identity = json.dumps([source, revision, list(new_tokens.items())])
    folder = cache_dir() / "extended_models" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if not (folder / "config.json").is_file():
        logger.info("adding %d tokens to base model %s in %s", len(new_tokens), source, folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with write_folder(folder) as temporary:
                model, tokenizer = load()
                _extend(model, tokenizer, new_tokens)
                model.save_pretrained(temporary)
                tokenizer.save_pretrained(temporary)
        except FileExistsError:
            logger.info("another process made %s meanwhile", folder)
    return str(folder)


def _extend(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, new_tokens: Mapping[str, str]) -> None:
    # Before the new tokens are added, so that no text is encoded by one of them.
    texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in new_tokens.values()]
    # Special tokens, so that no text of a query is ever read as one of them.
    tokenizer.add_tokens(list(new_tokens), special_tokens=True)
    # Many vocabularies have unused rows at their end.
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    _start_rows(model, tokenizer, dict(zip(new_tokens, texts, strict=True)))


@torch.no_grad()
def _start_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, list[int]]) -> None:
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):  # type: ignore[no-untyped-call]
        rows = layer.weight
        assert isinstance(rows, torch.Tensor), "an embedding or a linear head"
        for token, ids in texts.items():
            rows[tokenizer.convert_tokens_to_ids(token)] = rows[ids].mean(dim=0)
