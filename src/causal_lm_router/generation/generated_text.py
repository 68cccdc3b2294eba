"""From the token ids that a base model generated to a Generation, the same for every backend."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from causal_lm_router.prompting.token_trie import TokenTrie
from causal_lm_router.routing import Generation


def generated_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], stop_ids: Sequence[int] = ()) -> str:
    """Return the text of generated ids without special tokens, but with the one of `stop_ids` that ended it."""
    text = _decoded(tokenizer, ids, skip_special_tokens=True)
    end = [token for token in ids[-1:] if token in stop_ids and token != tokenizer.eos_token_id]
    if end and not _decoded(tokenizer, end, skip_special_tokens=True):
        text += _decoded(tokenizer, end, skip_special_tokens=False)
    return text


def constrained_generation(
    tokenizer: PreTrainedTokenizerBase, trie: TokenTrie, ids: Sequence[int], logprobs: Sequence[float]
) -> Generation:
    """Return the sequence of the trie that generated ids begin with, as a generation that came to its end.

    `logprobs` are those of the ids. Special tokens of a sequence are part of its text, the end token is not.

    Raises:
        ValueError: the ids left the trie: the base model's settings keep one of its tokens from being generated.
    """
    number = next((n for n, sequence in enumerate(trie.sequences) if tuple(ids[: len(sequence)]) == sequence), None)
    if number is None:
        raise ValueError(f"targets: the backend cannot hold generations to them, it gave the tokens {list(ids)}")
    sequence = trie.sequences[number]
    kept = [token for token in sequence if token != tokenizer.eos_token_id]
    text = _decoded(tokenizer, kept, skip_special_tokens=False)
    return Generation(text, "stop", len(sequence), float(sum(logprobs[: len(sequence)])))


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
    options = {"skip_special_tokens": skip_special_tokens, "clean_up_tokenization_spaces": False}
    return str(tokenizer.decode(list(ids), **options))
