"""Permissions: settings by which code could run, files be written elsewhere, or records be sent to somebody else.

They belong to the person at the keyboard. A run folder may come from anywhere, so its config never grants one: who runs
a command on the folder gives it again on the command line. docs/run_folder.md lists them.
"""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from causal_lm_router.config.own_code import FUNCTION
from causal_lm_router.config.redact import hides_secret, redact_stored

READS = {
    "evaluate": ("base_model", "data", "inference", "decoding"),
    "route": ("base_model", "inference", "decoding"),
    "merge": ("base_model",),
    "push": (),
    "resume": ("base_model", "data", "objective", "trainer", "inference", "decoding", "tracking", "baseline"),
}
"""Command on a run folder -> the groups with permissions that it acts on. It asks for no others."""
GRANTED = "CAUSAL_LM_ROUTER_GRANTED"
"""Environment variable with which a sweep hands its own permissions to the process of a job: dotted key -> value."""
_PERMISSIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "base_model.trust_remote_code": (lambda value: value is False, "may not allow code"),
    # A name with a slash is a kernel from the hub, which is code.
    "base_model.attn_implementation": (lambda value: re.fullmatch(r"\w+", str(value)) is not None, "may not name code"),
    "data.allow_pickle": (lambda value: value is False, "may not allow code"),
    # The files of a sentence-transformers model name the classes that it is made of.
    "baseline.embedding": (lambda value: value in ("minilm", "base_model"), "may not name code"),
    "tracking.wandb.entity": (lambda value: value is None, "may not say who gets records"),
}
"""Dotted key -> whether a value grants nothing, and what the key may not do in a run folder."""
_HARMLESS = {
    "trainer.extra": """
        benchmark detect_anomaly deterministic enable_model_summary enable_progress_bar fast_dev_run
        gradient_clip_algorithm gradient_clip_val limit_train_batches log_every_n_steps max_epochs max_steps min_epochs
        min_steps num_nodes overfit_batches sync_batchnorm""",
    "inference.engine_args": """
        block_size cpu_offload_gb disable_custom_all_reduce disable_log_stats disable_sliding_window dtype
        enable_chunked_prefill enable_expert_parallel enable_lora enable_prefix_caching enable_sleep_mode enforce_eager
        gpu_memory_utilization kv_cache_dtype kv_cache_memory_bytes max_cpu_loras max_logprobs max_lora_rank max_loras
        max_model_len max_num_batched_tokens max_num_seqs num_gpu_blocks_override pipeline_parallel_size quantization
        scheduling_policy seed tensor_parallel_size""",
    "inference.sampling_args": """
        bad_words do_sample frequency_penalty ignore_eos length_penalty logprobs max_new_tokens max_tokens
        min_new_tokens min_p min_tokens n no_repeat_ngram_size num_beams presence_penalty repetition_penalty seed stop
        stop_token_ids temperature top_k top_p typical_p""",
}
"""Dictionary of a library's own arguments -> those that can do no harm. A new version may add any other, so what is not
listed has to be given again."""
_OF_OWN_CODE = [
    f"{group}.{key}" for group in ("data", "objective", "decoding", "baseline") for key in (FUNCTION, "options")
]
"""A function of the user's own, and its options, among which may be secrets."""
_NOT_HARMLESS = "may give a library only arguments that are known to be harmless"
_NO_SECRET = "keeps no secrets"


def acts_on(command: str, key: str) -> bool:
    """True where a command on a run folder acts on a dotted key that may hold a permission or a secret."""
    holders = (*_PERMISSIONS, *_HARMLESS, *_OF_OWN_CODE)
    is_one = any(key == holder or key.startswith(f"{holder}.") for holder in holders)
    return is_one and key.partition(".")[0] in READS[command]


def take_from_folder(where: object, settings: Mapping[str, Any], given: Iterable[str], command: str) -> dict[str, Any]:
    """Return a run folder's settings (plain values) without the permissions that the command acts on.

    `given` are the overrides on the command line: a permission that is named there gets its value there. So does one
    whose group is chosen there. What a sweep granted to the process of its job is put in.

    Raises:
        ValueError: the settings hold permissions, or lack secrets, that are not given again.
    """
    keys = {argument.lstrip("+~").partition("=")[0] for argument in given}
    granted = json.loads(os.environ.get(GRANTED, "{}"))
    taken: dict[str, Any] = {**settings}
    missing = []
    for key, (value, reason) in permissions(settings).items():
        group = key.partition(".")[0]
        if group not in READS[command]:
            continue
        if key in granted:
            _put(taken, key, granted[key])
        elif key in keys:
            # Hydra puts what is given in its place, but merges dictionaries.
            _put(taken, key, None if isinstance(value, Mapping) else value)
        elif group in keys:
            _put(taken, key, _GONE)
        else:
            word = shlex.quote(_word(key, value))
            missing.append(f"{key} must be given again, as {word}: a run folder ({where}) {reason}")
    if missing:
        raise ValueError("\n".join(missing))
    return taken


def to_give_again(settings: Mapping[str, Any], command: str) -> list[str]:
    """Return the overrides that a command on the run folder of these settings asks for; secrets stand as in there."""
    found = permissions(redact_stored(settings))
    return [_word(key, value) for key, (value, _) in found.items() if key.partition(".")[0] in READS[command]]


def grant(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment that hands all permissions and secrets of a sweep's settings to the process of a job."""
    stored = redact_stored(settings)
    return {GRANTED: json.dumps({key: _at(settings, key) for key in permissions(stored)})}


def permissions(settings: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Return dotted key -> value, and why it has to be given again, of all that settings (plain values) hold."""
    return {key: (value, reason) for key, value, reason in _find(settings)}


def _find(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    # 1. Secrets: a folder has a mark in their place.
    for key, value in _leaves(settings):
        if hides_secret(value):
            yield key, value, _NO_SECRET
    # 2. Functions of the user's own, in any group.
    for group, part in settings.items():
        if isinstance(part, Mapping) and part.get(FUNCTION) is not None:
            yield f"{group}.{FUNCTION}", part[FUNCTION], "may not name code"
    # 3. Single keys.
    for key, (grants_nothing, reason) in _PERMISSIONS.items():
        value = _at(settings, key)
        if value is not _GONE and not grants_nothing(value):
            yield key, value, reason
    # 4. What is handed on to a library as it stands.
    for name, harmless in _HARMLESS.items():
        arguments = _at(settings, name)
        for key, value in arguments.items() if isinstance(arguments, Mapping) else ():
            if (key not in harmless.split() or not _is_simple(value)) and not hides_secret(value):
                yield f"{name}.{key}", value, _NOT_HARMLESS


_GONE = object()


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _at(settings: Mapping[str, Any], key: str) -> Any:
    """Return the value under a dotted key, `_GONE` where there is none."""
    first, _, rest = key.partition(".")
    if not isinstance(settings, Mapping) or (key not in settings and first not in settings):
        return _GONE
    # The name of a library's argument may itself hold a dot.
    return settings[key] if key in settings else _at(settings[first], rest)


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Put a value under a dotted key, or take the key out with `_GONE`; dictionaries on the way are copied."""
    first, _, rest = key.partition(".")
    if key in settings:
        settings.pop(key) if value is _GONE else settings.update({key: value})
    else:
        settings[first] = {**settings[first]}
        _put(settings[first], rest, value)


def _is_simple(value: Any) -> bool:
    return not isinstance(value, Mapping) and not (
        isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value)
    )


def _word(key: str, value: Any) -> str:
    """Return the override that gives a value again, on one line; `...` where the value is not known."""
    if hides_secret(value) and not str(value).startswith("${"):
        return f"{key}=..."
    return f"{key}={_typed(value)[:200]}"


def _typed(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_typed(item)}" for key, item in value.items()) + "}"
    # In quotes unless it needs none; JSON escapes what would act on a terminal.
    return value if isinstance(value, str) and re.fullmatch(r"[\w./:@-]+|\$\{[\w.:]+\}", value) else json.dumps(value)
