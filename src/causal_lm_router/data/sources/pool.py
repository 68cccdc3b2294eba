"""The pool: candidates from LLMRouter's pool file, and the cost of a candidate's answer."""

import re
from collections.abc import Sequence
from pathlib import Path

from causal_lm_router.config import FileDataConfig
from causal_lm_router.data.sources.strict_json import read_object
from causal_lm_router.routing import Candidate, check_cost, check_pool, check_text

POOL_FILE = "default_llm.json"
CHARS_PER_TOKEN = 4
TOKENS_PER_PRICE = 1_000_000
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([MBT])")
_BILLIONS = {"M": 1e-3, "B": 1.0, "T": 1e3}


def find_pool(
    config: FileDataConfig, beside: Path | None = None, file_name: str = POOL_FILE
) -> tuple[Candidate, ...] | None:
    """Return the pool of `data.pool_path`, else of `file_name` in the folder `beside`, else None.

    Raises:
        ValueError: `data.pool_path` is no file, or a pool file cannot be used.
    """
    if config.pool_path is not None:
        path = Path(config.pool_path).expanduser()
        if not path.is_file():
            raise ValueError(f"data.pool_path must be a file, got {config.pool_path!r}")
        return read_pool(path)
    if beside is not None and (beside / file_name).is_file():
        return read_pool(beside / file_name)
    return None


def read_pool(path: Path) -> tuple[Candidate, ...]:
    """Return the candidates of a pool file, in its order.

    The file is LLMRouter's: one object, candidate name -> {"input_price"?, "output_price"? (USD per million tokens),
    "feature"? (a description), "size"? (parameters, such as "7B" or "512M"), ...}; other keys are ignored.

    Raises:
        ValueError: the file cannot be used; the message names the file and the candidate.
    """
    entries = read_object(path)
    candidates = tuple(_to_candidate(path, name, entry) for name, entry in entries.items())
    try:
        check_pool([candidate.name for candidate in candidates])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return candidates


def choose_pool(candidate_names: Sequence[str], known: Sequence[Candidate] | None) -> tuple[Candidate, ...]:
    """Return the candidates of these names: in the order and with the prices of `known` if given, else as they come.

    Raises:
        ValueError: `known` lacks a name, or the names make no usable pool.
    """
    check_pool(candidate_names)
    if known is None:
        return tuple(Candidate(name) for name in candidate_names)
    missing = set(candidate_names) - {candidate.name for candidate in known}
    if missing:
        listed = ", ".join(candidate.name for candidate in known)
        raise ValueError(f"unknown candidate {min(missing)!r} (the pool file has {listed})")
    # The order of `known`, so that the pool file decides on the order of scores and of ties.
    wanted = set(candidate_names)
    return tuple(candidate for candidate in known if candidate.name in wanted)


def answer_cost(candidate: Candidate, input_tokens: float, output_tokens: float) -> float | None:
    """Return the cost (USD) of an answer; None where a price of the candidate is unknown."""
    if candidate.input_price is None or candidate.output_price is None:
        return None
    return (input_tokens * candidate.input_price + output_tokens * candidate.output_price) / TOKENS_PER_PRICE


def count_tokens(text: str) -> float:
    """Return an estimate of the text's number of tokens, at four characters a token."""
    return len(text) / CHARS_PER_TOKEN


def _to_candidate(path: Path, name: str, entry: object) -> Candidate:
    if not isinstance(entry, dict):
        raise ValueError(f"{path}: candidate {name!r} must be an object, got {type(entry).__name__}")
    # LLMRouter writes null or "" where there is no description.
    description = entry.get("feature") or ""
    if not isinstance(description, str):
        raise ValueError(f"{path}: candidate {name!r}: 'feature' must be a text, got {type(description).__name__}")
    try:
        check_text(description, "feature")
    except ValueError as error:
        raise ValueError(f"{path}: candidate {name!r}: {error}") from None
    prices = [_to_price(path, name, key, entry.get(key)) for key in ("input_price", "output_price")]
    return Candidate(name, prices[0], prices[1], description, _to_size(entry.get("size")))


def _to_size(value: object) -> float | None:
    """Return billions of parameters; None for a size that is not given, or in other words ("unknown")."""
    match = _SIZE.fullmatch(value.strip().upper()) if isinstance(value, str) else None
    return None if match is None else float(match[1]) * _BILLIONS[match[2]]


def _to_price(path: Path, name: str, key: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        return check_cost(value)
    except ValueError:
        allowed = "a finite number of USD per million tokens, at least 0"
        raise ValueError(f"{path}: candidate {name!r}: {key} must be {allowed}, got {value!r}") from None
