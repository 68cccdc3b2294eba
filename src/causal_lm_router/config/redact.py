"""Secrets taken out of configurations, command lines and logs before they are written or shown.

A value is taken out when a key above it names a secret (`api_key`, `hf_token`, `db_password`). Part of a text is taken
out when it is the value of an environment variable with such a name, or of such a key on this process's command line,
or when it looks like a secret: credentials or a secret parameter in a URL, an access key with a well-known prefix.
A reference to an environment variable (`${oc.env:HF_TOKEN}`) is no secret and stays.
"""

import logging
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
_ACCESS_KEY = re.compile(r"\b(?:hf_[A-Za-z0-9]{20,}|(?:sk-|ghp_|github_pat_|glpat-|xox[abp]-)[\w-]{16,})")
# A name, "=" or ":", and a value in quotes or up to the next space, comma or bracket.
_NAMED_VALUE = re.compile(r"""(([\w.]+)\s*[=:]\s*)('[^']*'|"[^"]*"|[^\s,{}\[\]]+)""")
_REFERENCE = re.compile(r"""['"]?\$\{oc\.env:\w+\}['"]?""")
_SHORTEST_SECRET = 8  # shorter values of the environment would take harmless words out of texts
_SURELY_SECRET = 16
_OF_CANDIDATES = ("renamed_candidates", "scores", "costs")
"""Keys of dictionaries whose own keys are names of candidates, which name no secrets."""
_typed: set[str] = set()


def redact(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `config`, nested mappings and lists included, with `<redacted>` in place of every secret.

    None, booleans and empty texts stay even under the key of a secret: they hold no secret.
    """
    # Secrets of the environment are taken out of every text, under any key.
    secrets = _environment_secrets()
    return {key: _redact_value(value, names_secret(str(key)), secrets) for key, value in config.items()}


def redact_stored(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings (plain values) as its folder may keep them.

    In place of a secret stands the environment variable that holds it, as `${oc.env:NAME}`, or else `<redacted>`.
    """
    named = {value: name for name, value in sorted(os.environ.items()) if len(value) >= _SHORTEST_SECRET}
    # Settings are read again, so a short word that a variable happens to hold stays.
    secrets = [secret for secret in _environment_secrets() if len(secret) >= _SURELY_SECRET]
    return {key: _redact_value(value, names_secret(str(key)), secrets, named) for key, value in settings.items()}


def redact_composed(plain: Any) -> Any:
    """Return what Hydra keeps of a job (plain values of its config, its own settings, or its overrides) likewise."""
    if not isinstance(plain, Mapping):
        return _redact_overrides(plain)
    # Under its own key Hydra repeats the command line, as a list and as texts.
    hydra = {"hydra": _redact_overrides(plain["hydra"])} if "hydra" in plain else {}
    return {**redact_stored(plain), **hydra}


def _redact_overrides(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _redact_overrides(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_redact_overrides(item) for item in value]
    return redact_arguments([value])[0] if isinstance(value, str) else value


def hides_secret(value: Any) -> bool:
    """True for a value that stands in the place of a secret, or holds one that does."""
    if isinstance(value, Mapping | list):
        return any(map(hides_secret, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, str) and (REDACTED in value or _REFERENCE.fullmatch(value) is not None)


def redact_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as `redact` does, but by names and forms alone: the same in every environment."""
    return {key: _redact_value(value, names_secret(str(key)), []) for key, value in settings.items()}


def remember_secrets(settings: Mapping[str, Any]) -> None:
    """Take the secrets of these settings (plain values) out of every text that is redacted in this process."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            remember_secrets({f"{key}.{inner}": item for inner, item in value.items()})
        # A reference is no secret; what it stands for is, and comes with the resolved config.
        elif isinstance(value, str) and names_secret(str(key)) and not hides_secret(value):
            _typed.update([value] if len(value) >= _SHORTEST_SECRET else [])


class SecretFilter(logging.Filter):
    """Takes secrets out of what a logging handler writes."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the message and the traceback of a record, and let it pass."""
        message = record.getMessage()
        if (clean := redact_text(message)) != message:
            record.msg, record.args = clean, None
        # Formatters show this text where it is there already.
        if record.exc_info and not record.exc_text:
            record.exc_text = redact_text(logging.Formatter().formatException(record.exc_info))
        return True


def remember_arguments(arguments: Iterable[str]) -> None:
    """Do the same with the secrets of a command line."""
    pairs = (argument.partition("=") for argument in arguments)
    remember_secrets({key: value.strip("'\"") for key, _, value in pairs if not _REFERENCE.fullmatch(value)})


def redact_text(text: str) -> str:
    """Return a text with `<redacted>` in place of every secret."""
    return _redact_text(text, _environment_secrets())


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
    return sorted(named | _typed, key=lambda value: (-len(value), value))


def _redact_value(
    value: Any, is_secret: bool, secrets: list[str], variables: Mapping[str, str] | None = None, name: str = ""
) -> Any:
    """Return a value without secrets; in place of one that is that of an environment variable stands its name."""
    if isinstance(value, Mapping):
        of_candidates = name in _OF_CANDIDATES
        return {
            key: _redact_value(
                item, is_secret or (not of_candidates and names_secret(str(key))), secrets, variables, str(key)
            )
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_redact_value(item, is_secret, secrets, variables) for item in value)
    if value is None or isinstance(value, bool) or value == "":
        return value
    if isinstance(value, str) and _REFERENCE.fullmatch(value):
        return REDACTED if variables is None and is_secret else value
    # Numbers under a secret's key too: a password may be one.
    if is_secret:
        variable = None if variables is None else variables.get(str(value))
        return REDACTED if variable is None else f"${{oc.env:{variable}}}"
    return _redact_text(value, secrets) if isinstance(value, str) else value


def _redact_argument(argument: str, secrets: list[str]) -> str:
    key, equals, value = argument.partition("=")
    if _REFERENCE.fullmatch(value):
        return argument
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
    is_reference = _REFERENCE.match(match.string, match.end(1)) is not None
    return f"{match[1]}{REDACTED}" if names_secret(match[2]) and not is_reference else match[0]
