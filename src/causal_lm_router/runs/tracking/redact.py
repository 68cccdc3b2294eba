"""Secrets taken out of configurations and command lines before they are recorded.

A value is taken out when a key above it names a secret (`api_key`, `hf_token`, `db_password`). Part of a text is taken
out when it is the value of an environment variable with such a name, or when it looks like a secret: credentials or a
secret parameter in a URL, an access key with a well-known prefix.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

REDACTED = "<redacted>"

_ALWAYS_SECRET = {"secret", "secrets", "password", "passwords", "passwd", "passphrase", "credential", "credentials"}
_SECRET_AT_THE_END = {"key", "keys", "apikey", "apikeys", "token", "auth", "authorization", "cookie"}
# Tokens of text, as in eos_token, are no secrets; plural tokens are mostly counts, as in max_new_tokens.
_TEXT_TOKENS = {"bos", "eos", "pad", "unk", "sep", "cls", "mask", "begin", "start", "end", "stop", "image", "special"}
_SECRET_TOKENS = {"api", "access", "auth", "refresh", "bearer"}

# Words of a name in any case: `HTTPKey` is "HTTP" and "Key", `apiKey` is "api" and "Key".
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# From "://" to the last "@" before a slash: a password may itself hold an "@".
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/\s]+(?=@)")
_URL_PARAMETER = re.compile(r"([?&]([\w.-]+)=)[^&#\s]+")
_ACCESS_KEY = re.compile(r"\b(?:hf_|sk-|ghp_|github_pat_|glpat-|xox[abp]-)[\w-]{16,}")
# A name, "=" or ":", and a value in quotes or up to the next space, comma or bracket.
_NAMED_VALUE = re.compile(r"""(([\w.]+)\s*[=:]\s*)('[^']*'|"[^"]*"|[^\s,{}\[\]]+)""")
_SHORTEST_SECRET = 8  # shorter values of the environment would take harmless words out of texts


def redact(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `config`, nested mappings and lists included, with `<redacted>` in place of every secret.

    None, booleans and empty texts stay even under the key of a secret: they hold no secret.
    """
    # Secrets of the environment are taken out of every text, under any key.
    secrets = _environment_secrets()
    return {key: _redact_value(value, names_secret(str(key)), secrets) for key, value in config.items()}


def redact_arguments(arguments: Iterable[str]) -> list[str]:
    """Return the command line with `<redacted>` in place of every secret, as in `engine_args.hf_token=<redacted>`."""
    secrets = _environment_secrets()
    return [_redact_argument(argument, secrets) for argument in arguments]


def names_secret(name: str) -> bool:
    """True for the name of a key or variable that holds a secret; words are told apart by case, `_`, `-` and `.`."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words:
        return False
    *before, last = words
    # "tokens" are mostly counts (max_new_tokens), "token" is mostly a secret but not of text (eos_token).
    if last == "tokens":
        return bool(before) and before[-1] in _SECRET_TOKENS
    if last == "token" and before and before[-1] in _TEXT_TOKENS:
        return False
    return last in _SECRET_AT_THE_END or not _ALWAYS_SECRET.isdisjoint(words)


def _environment_secrets() -> list[str]:
    # Longest first, for one may hold another.
    named = {value for name, value in os.environ.items() if names_secret(name) and len(value) >= _SHORTEST_SECRET}
    return sorted(named, key=lambda value: (-len(value), value))


def _redact_value(value: Any, is_secret: bool, secrets: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _redact_value(item, is_secret or names_secret(str(key)), secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_redact_value(item, is_secret, secrets) for item in value)
    if value is None or isinstance(value, bool) or value == "":
        return value
    # Numbers under a secret's key too: a password may be one.
    if is_secret:
        return REDACTED
    return _redact_text(value, secrets) if isinstance(value, str) else value


def _redact_argument(argument: str, secrets: list[str]) -> str:
    key, equals, _ = argument.partition("=")
    if equals and names_secret(key):
        return f"{key}={REDACTED}"
    # The value may be a dictionary or a list as Hydra writes them, with names of its own.
    return _redact_text(_NAMED_VALUE.sub(_redact_named, argument), secrets)


def _redact_text(text: str, secrets: list[str]) -> str:
    # Known secrets first, then what has the form of one.
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    text = _URL_CREDENTIALS.sub(REDACTED, text)
    text = _URL_PARAMETER.sub(_redact_named, text)
    return _ACCESS_KEY.sub(REDACTED, text)


def _redact_named(match: re.Match[str]) -> str:
    return f"{match[1]}{REDACTED}" if names_secret(match[2]) else match[0]
