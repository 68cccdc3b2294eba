"""A base model with new tokens: a checkpoint in the cache, loaded by training and generation like any other."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from causal_lm_router.config import BaseModelConfig
from causal_lm_router.files import cache_dir, write_folder
from causal_lm_router.models.base_model import load_tokenizer, prepare_base_model

logger = logging.getLogger(__name__)


def base_model_source(config: BaseModelConfig, new_tokens: Mapping[str, str]) -> str:
    """Return the hub name or folder to load the base model from, with `new_tokens` (token -> text) in its vocabulary.

    The embedding of a new token, and its row of the head where the two do not share weights, starts as the mean over
    the tokens of its text. The folder appears complete or not at all; its name is a hash of what it is made of.

    Raises:
        ValueError: the tokenizer cannot be loaded or used, see `load_tokenizer`.
    """
    source = prepare_base_model(config)
    if not new_tokens:
        return source
    identity = json.dumps([source, config.revision, list(new_tokens.items())])
    folder = cache_dir() / "extended_models" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if not (folder / "config.json").is_file():
        logger.info("adding %d tokens to base model %s in %s", len(new_tokens), config.name, folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with write_folder(folder) as temporary:
                _extend(source, config, new_tokens, temporary)
        except FileExistsError:
            logger.info("another process made %s meanwhile", folder)
    return str(folder)


def _extend(source: str, config: BaseModelConfig, new_tokens: Mapping[str, str], folder: Path) -> None:
    tokenizer = load_tokenizer(source, config)
    # In the dtype of its file, so that programs that load it later get the dtype of the base model.
    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", **options)
    # Before the new tokens are added, so that no text is encoded by one of them.
    texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in new_tokens.values()]
    # Special tokens, so that no text of a query is ever read as one of them.
    tokenizer.add_tokens(list(new_tokens), special_tokens=True)
    # Many vocabularies have unused rows at their end.
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    _start_rows(model, tokenizer, dict(zip(new_tokens, texts, strict=True)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def _start_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, list[int]]) -> None:
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):  # type: ignore[no-untyped-call]
        rows = layer.weight
        assert isinstance(rows, torch.Tensor), "an embedding or a linear head"
        for token, ids in texts.items():
            rows[tokenizer.convert_tokens_to_ids(token)] = rows[ids].mean(dim=0)
