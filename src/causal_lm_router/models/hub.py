"""The hub: whether it can be reached, and a base model's files from it."""

import functools
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from causal_lm_router.config import BaseModelConfig, BaseModelOrigin


@functools.cache
def hub_answers(timeout_s: float = 5.0) -> bool:
    """Return whether the hub's address accepts a connection within the timeout; asked once a process.

    The hub's client itself tries for minutes before it gives up. With a proxy in the environment the answer is True
    untested, since only the proxy knows. With HF_HUB_OFFLINE it is False.
    """
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    endpoint = urlsplit(huggingface_hub.constants.ENDPOINT)
    if any(scheme in getproxies() for scheme in ("http", "https", "all")):
        return True
    port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
    try:
        with socket.create_connection((endpoint.hostname or "", port), timeout=timeout_s):
            return True
    except OSError:
        return False


def check_reachable(config: BaseModelConfig) -> None:
    """Check that a base model is in a folder or in the hub's cache, where the hub does not answer.

    Raises:
        ValueError: it is in neither.
    """
    if config.origin is not BaseModelOrigin.hub or Path(config.name).is_dir():
        return
    try:
        cached = huggingface_hub.try_to_load_from_cache(config.name, "config.json", revision=config.revision)
        is_there = isinstance(cached, str) or hub_answers()
    except HFValidationError:  # a path, and not the name of a repository
        is_there = False
    if not is_there:
        raise ValueError(cannot_load(config, "no such folder, not in the hub's cache, and not to be had from the hub"))


def cannot_load(config: BaseModelConfig, reason: str) -> str:
    """Return what an error says of a base model that cannot be had."""
    return (
        f"base_model.name must be a base model that can be loaded, got {config.name!r} ({reason}). Without the hub, a "
        "licence for it or a GPU, use experiment=quickstart: its base model comes with the installation"
    )


def local_folder(name_or_path: str, config: BaseModelConfig) -> Path:
    """Return the folder of a base model's files; those that are only on the hub are fetched first."""
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    return Path(snapshot_download(name_or_path, revision=config.revision))


def hub_name(config: BaseModelConfig) -> str | None:
    """Return the name under which the hub has the base model; None for one that only this machine has."""
    if config.origin is not BaseModelOrigin.hub:
        return config.hub_name
    return None if Path(config.name).is_dir() else config.name
