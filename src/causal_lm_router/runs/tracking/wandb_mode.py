"""How a job records in W&B: online, offline or not at all, and why."""

import os
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Literal

from causal_lm_router.config import WandbMode

if TYPE_CHECKING:
    import wandb

KEY = "tracking.wandb.mode"
_LONGEST_PROBE_S = 5.0
_GATEWAY_ERRORS = (502, 503, 504)


@dataclass(frozen=True)
class Recording:
    """The way W&B records, and the reason where it is not online."""

    mode: Literal["online", "offline", "disabled"]
    reason: str = ""


def choose_recording(mode: WandbMode, timeout_s: float) -> Recording:
    """Return how to record under `tracking.wandb.mode`, after at most `min(timeout_s, 5)` seconds.

    `auto` follows W&B's own mode (WANDB_MODE, `wandb offline`). Where W&B has none, it is online with an API key and a
    server that answers, else offline.

    Raises:
        ValueError: under `online` there is no key, or none that can be used.
        ConnectionError: under `online` the server does not answer.
    """
    # Neither a key nor a server matters to these two, so W&B is not even imported.
    if mode in (WandbMode.offline, WandbMode.disabled):
        return Recording("offline" if mode is WandbMode.offline else "disabled", f"{KEY}={mode}")
    settings = client_settings()
    # Asked for by name, `online` wins over W&B's own mode.
    if mode is WandbMode.auto and settings.mode in ("offline", "dryrun", "disabled"):
        reason = f"W&B's own mode is {settings.mode} (WANDB_MODE, or `wandb {settings.mode}`)"
        return Recording("disabled" if settings.mode == "disabled" else "offline", reason)
    # The key comes first: looking for it takes no time, the server may take seconds.
    if no_key := _why_no_key():
        if mode is WandbMode.online:
            raise ValueError(f"{KEY} must be auto, offline or disabled without a key, got 'online': {no_key}")
        return Recording("offline", no_key)
    if no_answer := why_no_answer(settings, timeout_s):
        if mode is WandbMode.online:
            raise ConnectionError(
                f"{KEY} must be auto, offline or disabled without a server, got 'online': {no_answer}"
            )
        return Recording("offline", no_answer)
    return Recording("online")


def client_settings() -> "wandb.Settings":
    """Start W&B's client, silent on the terminal, and return its settings from environment, files and defaults.

    Its crash reports stay off unless WANDB_ERROR_REPORTING is set.
    """
    # W&B reads it once, when it is imported.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb.setup(settings=wandb.Settings(silent=True)).settings


def why_no_answer(settings: "wandb.Settings", timeout_s: float) -> str | None:
    """Return why the W&B server cannot be reached, None when it answers; takes at most `min(timeout_s, 5)` seconds."""
    timeout_s = min(timeout_s, _LONGEST_PROBE_S)
    answers: list[str | None] = []
    # In a thread of its own because no timeout limits the look-up of a host name.
    probe = threading.Thread(target=lambda: answers.append(_probe(settings, timeout_s)), daemon=True)
    probe.start()
    probe.join(timeout_s)
    answer = answers[0] if answers else f"no answer within {timeout_s:g} s"
    return None if answer is None else f"the W&B server {settings.base_url} cannot be reached ({answer})"


def _why_no_key() -> str | None:
    import wandb

    try:
        # With a run under way elsewhere in this process W&B is logged in already, and login() refuses to look.
        if wandb.run is not None or wandb.login(prompt=False, verify=False):
            return None
    except wandb.errors.AuthenticationError as error:
        return f"the W&B API key cannot be used ({error})"
    return "there is no W&B API key (set WANDB_API_KEY or run `wandb login`)"


def _probe(settings: "wandb.Settings", timeout_s: float) -> str | None:
    # Proxies that W&B is told of win over those of the environment.
    proxies = {"http": settings.http_proxy, "https": settings.https_proxy}
    own = {scheme: url for scheme, url in proxies.items() if url}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({**urllib.request.getproxies(), **own}))
    # The smallest question that a GraphQL server answers.
    question = urllib.request.Request(
        f"{settings.base_url}/graphql", b'{"query": "{ __typename }"}', {"Content-Type": "application/json"}
    )
    try:
        opener.open(question, timeout=timeout_s).close()
    except urllib.error.HTTPError as error:
        # A refusal is an answer too, since we send no key. A gateway's error means that the server behind it is away.
        return f"status {error.code}" if error.code in _GATEWAY_ERRORS else None
    except urllib.error.URLError as error:
        # W&B's client trusts certificates that Python may not know.
        return None if "CERTIFICATE_VERIFY_FAILED" in str(error.reason) else str(error.reason)
    except (OSError, HTTPException) as error:
        return str(error) or type(error).__name__
    return None
