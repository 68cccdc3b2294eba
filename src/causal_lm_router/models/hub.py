"""Whether the hub can be reached."""

import functools
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub


@functools.cache
def hub_answers(timeout_s: float = 5.0) -> bool:
    """True when the hub's address can be connected to, or a proxy stands between that would tell.

    False where HF_HUB_OFFLINE forbids to try.
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
