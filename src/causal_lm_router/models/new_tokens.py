"""A base model with new tokens: a checkpoint in the cache, loaded by training and generation like any other."""

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from causal_lm_router.files.checksums import make_cached
from causal_lm_router.files.source_code import code_alone
from causal_lm_router.files.writing import cache_dir


def extend_base_model(
    name: str,
    version: str,
    load: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]],
    new_tokens: Mapping[str, str],
) -> str:
    """Return the folder of a base model with `new_tokens` (token -> text) in its vocabulary, made where it is missing.

    `load` returns the base model with its tokenizer; `version` changes when the content of its files does.

    The embedding of a new token, and its row of the head where the two do not share weights, starts as the mean over
    the tokens of its text. The folder appears complete or not at all; its name is a hash of what it is made of.
    """
    code = code_alone(inspect.getsource(sys.modules[__name__]))
    made_from = json.dumps([version, list(new_tokens.items()), code, transformers.__version__])
    folder = cache_dir() / "extended_models" / hashlib.sha256(made_from.encode()).hexdigest()[:16]

    def make(temporary: Path) -> None:
        model, tokenizer = load()
        _extend(model, tokenizer, new_tokens)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)

    make_cached(folder, make, f"adding {len(new_tokens)} tokens to base model {name}")
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
