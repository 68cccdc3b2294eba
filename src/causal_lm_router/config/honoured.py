"""What each command on a run's folder honours: all other settings stay as the run has them."""

from collections.abc import Iterable

from causal_lm_router.config.keys import find_keys, is_group
from causal_lm_router.config.overrides import key_of
from causal_lm_router.config.permissions import acts_on
from causal_lm_router.config.sweeps import NOT_IDENTITY

_BASE_MODEL = tuple(f"base_model.{key}" for key in ("name", "revision", "dtype", "attn_implementation"))

HONOURED: dict[str, tuple[str, ...]] = {
    "evaluate": (
        "run_dir",
        "output_dir",
        "latency_calls",
        "data",
        "prompt",
        "inference",
        "decoding",
        "parsing",
        "evaluation.final_split",
        "evaluation.max_queries",
        "tracking.wandb",
        *_BASE_MODEL,
        "trainer.num_threads",
        "trainer.progress_bar",
    ),
    "route": (
        "run_dir",
        "query",
        "input",
        "output",
        "chunk_size",
        "num_actors",
        "prompt",
        "inference",
        "decoding",
        "parsing",
        "data.max_query_chars",
        *_BASE_MODEL,
        "trainer.progress_bar",
    ),
    "resume": ("run_dir", *(key for key in NOT_IDENTITY if key not in ("run_dir", "sweep"))),
    "merge": ("run_dir", "inference.dtype", *_BASE_MODEL),
    "push": ("run_dir", "repo", "what", "private", "dry_run"),
}
"""Command -> the groups and keys that it honours; of a group all keys but those of `_OF_TRAINING`."""
_OF_TRAINING = {
    "evaluate": ("data.task_shrinkage", "data.keep_undecided", "data.held_out_candidates"),
    "route": ("decoding.also",),
}
"""Keys of honoured groups that the command does not use."""


def honours(command: str, key: str) -> bool:
    """True where a command on a run takes a value for a dotted key, or a choice for a group."""
    if key in _OF_TRAINING.get(command, ()):
        return False
    # What no run folder may allow is given again to the commands that act on it.
    return acts_on(command, key) or any(key == taken or key.startswith(f"{taken}.") for taken in HONOURED[command])


def check_honoured(command: str, overrides: Iterable[str]) -> None:
    """Check that a command on a run uses every setting that it is given.

    Keys that no command has pass: composing the config says what they may stand for.

    Raises:
        ValueError: it does not use one.
    """
    for override in overrides:
        key = key_of(override)
        if (find_keys(key) or is_group(key)) and not honours(command, key):
            taken = ", ".join(HONOURED[command])
            raise ValueError(f"{key} must stay as the run has it, got {override!r}: {command} takes {taken}")
