"""A config as plain dictionaries: its identity, how two differ, its YAML."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import yaml
from omegaconf import OmegaConf

from causal_lm_router import config as schema
from causal_lm_router.config.redact import redact_names, redact_stored


def identity_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a run's result depends on, out of all of them (plain), with a mark for each secret."""
    return _without(redact_names(settings), schema.NOT_IDENTITY, "")


def _without(settings: Mapping[str, Any], dotted_keys: Collection[str], prefix: str) -> dict[str, Any]:
    return {
        key: _without(value, dotted_keys, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if f"{prefix}{key}" not in dotted_keys
    }


def describe_differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the settings in which the two differ, as `dotted.key=theirs (here ours)`."""
    different = []
    # Their keys in their order, then those that only we have.
    for key in {**theirs, **ours}:
        one, other = theirs.get(key), ours.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            different += describe_differences(one, other, f"{prefix}{key}.")
        elif one != other:
            different.append(f"{prefix}{key}={one!r} (here {other!r})")
    return different


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> value; lists and empty dictionaries are values, as JSON text."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, dict | list) else value
    return flat


def dump_config(config: Any) -> str:
    """Return a config dataclass as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def stored_config(config: Any) -> str:
    """Return a config dataclass as the YAML that its run folder keeps: without secrets."""
    return OmegaConf.to_yaml(OmegaConf.create(redact_stored(config_dict(config))))


def config_dict(config: Any) -> dict[str, Any]:
    """Return a config dataclass as nested plain dictionaries, enum members as their values."""
    # By way of the text, so that it equals what is read back from a run folder.
    loaded: dict[str, Any] = yaml.safe_load(dump_config(config))
    return loaded
