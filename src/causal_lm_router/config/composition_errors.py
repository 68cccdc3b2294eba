"""What a failed composition says, in one line: the file or the override, the key, what it must be."""

import re
from dataclasses import fields, is_dataclass

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException, ValidationError

from causal_lm_router.config.checks import one_of
from causal_lm_router.config.keys import VARIANTS, Key, did_you_mean, find_keys, similar_keys, similar_words

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError)


def describe_error(error: Exception) -> str:
    """Return in one line what a failed composition says: the file or the override, the dotted key, what is allowed."""
    # Hydra says which override failed; OmegaConf, whose error it wraps, says why.
    reason = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    text = f"{error}\n{reason or ''}"
    if missing := _find_unchosen(text):
        return f"{missing} must be one of {', '.join(_choices(missing))}: choose it with {missing}=<one of them>"
    if "Could not find '" in text:
        return _refuse_choice(text)
    if isinstance(reason, ValidationError) and "Error merging override" in text and (known := _known_key(reason)):
        return f"{known.name} must be {known.what}, got {reason.value!r}"
    # A new key that a + could add is welcome in a dictionary, but nowhere else.
    if "is not in struct" not in text:
        text = re.sub(r"To append to your config use .*", "", text)
    # Folders that were searched, links and Python types help nobody who typed a wrong key.
    text = re.sub(r"Config search path:(\n\t.*)*|See https:.*|^ *(reference|object)_type=.*", "", text, flags=re.M)
    # OmegaConf puts the key on a line of its own; here it follows the sentence.
    text = re.sub(r"\n *full_key: *(\S*)", r" (key: \1)", text).replace(" (key: )", "").replace("\n\t", " ")
    # For a wrong key the right ones.
    keys_of = getattr(reason or error, "object_type", None)
    if "not in '" in text and is_dataclass(keys_of):
        wrong = re.search(r"\(key: ([\w.]+)\)", text)
        # The right key of another choice is told by these choices.
        others = tuple(choice for key in find_keys(wrong[1]) for choice in key.choices) if wrong else ()
        similar = did_you_mean(similar_keys(wrong[1])) if wrong else ""
        listed = f"its keys are {', '.join(field.name for field in fields(keys_of))}{similar}"
        text += f"\nit is a key of {wrong[1].partition('.')[0]}={one_of(others)}" if wrong and others else f"\n{listed}"
    return "; ".join(line.strip().rstrip(".:") for line in text.splitlines() if line.strip())


def _find_unchosen(text: str) -> str | None:
    """Return the group of VARIANTS that nothing was chosen for, where an error's text comes down to that."""
    # OmegaConf names the group, or the key inside that `name` is made of.
    for group, (key, _) in VARIANTS.items():
        if re.search(rf"[Mm]issing mandatory value: {group}(\.{key})?(?![.\w])", text):
            return group
    # The base class: no choice has it, so a key that it lacks was set before anything was chosen.
    return "data" if "not in 'DataConfig'" in text else None


def _known_key(error: OmegaConfBaseException) -> Key | None:
    """Return the key of a value that was refused; that of a list for one of its items."""
    found = find_keys(re.sub(r"\[\d+\]$", "", error.full_key or ""))
    return found[0] if found else None


def _refuse_choice(text: str) -> str:
    """Return what an error says of a choice that its group does not have, out of Hydra's words for it."""
    found = re.search(r"(?:In '(.*)': )?Could not find '(.+)/(.+)'", text)
    assert found is not None, text
    file, group, choice = found.groups()
    known = re.findall(
        r"^\t(\S+)$", text.partition("Available options")[2].partition("Config search path")[0], flags=re.M
    )
    # Of interest is a file that makes the choice; a command's own file takes it from the command line.
    where = f"{file}: " if file and "/" in file else ""
    similar = did_you_mean(f"{group}={each}" for each in similar_words(choice, known))
    return f"{where}{group} must be one of {', '.join(known)}, got {choice!r}{similar}"


def _choices(group: str) -> list[str]:
    """Return the choices of a group: all that Hydra finds while it composes, those of the user among them."""
    if GlobalHydra.instance().is_initialized():
        return list(GlobalHydra.instance().config_loader().get_group_options(group))
    return sorted(str(value) for value in VARIANTS[group][1])
