"""From a composed config, or plain values, to a checked dataclass; the id of a job."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from causal_lm_router import config as schema
from causal_lm_router.config.checks import Settings, as_file_name
from causal_lm_router.config.composition_errors import describe_error
from causal_lm_router.config.keys import BASELINE, VARIANTS
from causal_lm_router.config.overrides import take_literally
from causal_lm_router.config.plain import config_dict, identity_of

Schema = TypeVar("Schema", bound=Settings)


def resolve_config(composed: DictConfig | Mapping[str, Any], target: type[Schema]) -> Schema:
    """Return the composed config (or plain values) as a checked dataclass.

    The config is merged into a fresh schema first: a key added with `+key=` passes Hydra, but not this. Settings of a
    baseline give, for TrainConfig as `target`, its subclass BaselineRunConfig.

    Raises:
        ValueError: an unknown key, a value of the wrong type, a missing value, or a value its check refuses.
    """
    try:
        # Interpolations are resolved here; from now on a text is taken as it stands.
        plain = OmegaConf.to_container(composed, resolve=True) if isinstance(composed, DictConfig) else composed
        merged = OmegaConf.merge(schema_of(plain, target), take_literally(plain))
        resolved = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(describe_error(error)) from error
    assert isinstance(resolved, target)
    # Types fit by now. Values are checked next, and all problems are told at once.
    if problems := [*_unwritable_texts(config_dict(resolved)), *resolved.problems()]:
        raise ValueError("\n".join(problems))
    return resolved


def _unwritable_texts(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield a sentence for each text that no file and no path can hold."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _unwritable_texts(value, f"{prefix}{key}.")
        elif isinstance(value, str) and ("\0" in value or any("\ud800" <= char <= "\udfff" for char in value)):
            yield f"{prefix}{key} must be a text without NUL and without halves of surrogate pairs, got {value!r}"


def schema_of(settings: Any, target: type) -> Any:
    """Return the empty schema of these settings: `target`, with the subclass that each of VARIANTS asks for."""
    if target is schema.TrainConfig and BASELINE in settings:
        target = schema.BaselineRunConfig
    # OmegaConf takes a node's keys from its class, so the class must be that of the chosen source and method.
    node = OmegaConf.structured(target)
    for group, (key, variants) in VARIANTS.items():
        part = settings.get(group)
        variant = variant_of(part, key, variants)
        # `prepare` has no data, so not every schema has every group.
        if variant is not None and group in {field.name for field in fields(target)}:
            node[group] = OmegaConf.structured(variant)
    return node


def variant_of(part: Any, key: str, variants: Mapping[Any, type]) -> type | None:
    """Return the schema that a part of the settings asks for; None where it asks for none, or is no part at all."""
    value = part.get(key) if isinstance(part, Mapping) else None
    # A list or a dictionary there is a mistake, and cannot be looked up.
    return variants.get(value) if isinstance(value, str) else None


def job_id(config: schema.TrainConfig) -> str:
    """Return the id of a job (12 hexadecimal digits), a hash of all settings that its result depends on."""
    # Sorted keys: the same settings written in another order are the same job. 12 digits are short enough for a folder.
    return hashlib.sha256(json.dumps(identity_of(config_dict(config)), sort_keys=True).encode()).hexdigest()[:12]


def resolve_job(composed: DictConfig) -> schema.TrainConfig:
    """Return the checked config of a job whose composed config holds Hydra's own node too.

    Raises:
        ValueError: as `resolve_config`.
    """
    # Our schema knows nothing of Hydra's own node.
    ours = [str(key) for key in composed if key != "hydra"]
    return resolve_config(OmegaConf.masked_copy(composed, ours), schema.TrainConfig)


# On import: the workers of a launcher unpack a job, and with it this module, before they resolve its config.
OmegaConf.register_new_resolver(
    "base_model_name", lambda name: as_file_name(Path(str(name)).name.lower()), replace=True
)
OmegaConf.register_new_resolver("first_set", lambda first, second: second if first is None else first, replace=True)
OmegaConf.register_new_resolver("job_id", lambda *, _root_: job_id(resolve_job(_root_)), replace=True)
