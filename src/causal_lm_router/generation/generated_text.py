"""From generated token ids to a Generation, in the same way for every backend."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from causal_lm_router.prompting.token_trie import TokenTrie
from causal_lm_router.routing import Generation


def decode_generated(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], stop_ids: Sequence[int] = ()) -> str:
    """Return the text of generated ids without special tokens, except for one of `stop_ids` at the end."""
    text = _decode(tokenizer, ids, skip_special_tokens=True)
    # A stop id that is a special token (a candidate's own token) carries the answer, so its text is added.
    end = [token for token in ids[-1:] if token in stop_ids and token != tokenizer.eos_token_id]
    if end and not _decode(tokenizer, end, skip_special_tokens=True):
        text += _decode(tokenizer, end, skip_special_tokens=False)
    return text


def make_constrained_generation(
    tokenizer: PreTrainedTokenizerBase,
    trie: TokenTrie,
    decided: TokenTrie,
    ids: Sequence[int],
    logprobs: Sequence[float],
) -> Generation:
    """Return the sequence of the trie that the generated ids have decided on, as a finished generation.

    `decided` is the trie that `cut_when_decided` makes: behind its leaves all else is certain. `logprobs` are those of
    the ids. Special tokens of a sequence are part of its text, the end token is not.

    Raises:
        ValueError: the ids left the trie, since the base model's settings forbid one of its tokens.
    """
    # The ids may be longer than the sequence: a backend can add an end token.
    number = next((n for n, sequence in enumerate(decided.sequences) if tuple(ids[: len(sequence)]) == sequence), None)
    if number is None:
        raise ValueError(f"targets: the backend must generate one of them, got the tokens {list(ids)}")
    sequence, num_deciding = trie.sequences[number], len(decided.sequences[number])
    kept = [token for token in sequence if token != tokenizer.eos_token_id]
    text = _decode(tokenizer, kept, skip_special_tokens=False)
    return Generation(text, "stop", len(sequence), float(sum(logprobs[:num_deciding])))


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
    # The clean-up, which some tokenizers ask for, would take spaces out of names.
    options = {"skip_special_tokens": skip_special_tokens, "clean_up_tokenization_spaces": False}
    return str(tokenizer.decode(list(ids), **options))
