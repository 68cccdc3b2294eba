"""What compared runs are called: their name and the settings in which they differ, or else the ends of their paths."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from causal_lm_router.config import NOT_IDENTITY
from causal_lm_router.config.plain import flatten
from causal_lm_router.config.yaml_file import read_yaml
from causal_lm_router.evaluation.formatting import shorten_names
from causal_lm_router.evaluation.stored import RunEvaluation

_DECODING = "decoding.method"
MAX_SETTINGS = 4
"""Settings that a label names; of runs that differ in more the ends of the paths say which is meant."""


def label_runs(folders: Sequence[Path], evaluations: Sequence[RunEvaluation]) -> list[str]:
    """Return a label for each run, all different: `quickstart lora.lora_r=4`.

    Folders without a config, and runs that no few settings tell apart, have the end of their path beside or in the
    place of a name.
    """
    settings = [_read_settings(folder, one) for folder, one in zip(folders, evaluations, strict=True)]
    paths = [folder.resolve() for folder in folders]
    if not all(settings):
        return _path_ends(paths)
    keys = _differing(settings)
    names = [str(one.get("name") or path.name) for one, path in zip(settings, paths, strict=True)]
    labels = names
    if len(keys) <= MAX_SETTINGS:
        texts = {key: _texts([one.get(key) for one in settings]) for key in keys}
        labels = [
            " ".join([name, *(f"{key}={texts[key][index]}" for key in keys if key in settings[index])])
            for index, name in enumerate(names)
        ]
    if len(set(labels)) == len(labels):
        return labels
    return [f"{label} ({end})" for label, end in zip(labels, _path_ends(paths), strict=True)]


def _read_settings(folder: Path, evaluation: RunEvaluation) -> dict[str, Any]:
    """Dotted key -> value of the evaluation's config; empty without one. Another decoding's is two folders above."""
    above = [folder, folder.parent.parent] if folder.parent.name == "decodings" else [folder]
    path = next((path for each in above if (path := each / "config.yaml").is_file()), None)
    if path is None:
        return {}
    plain = read_yaml(path)
    if not isinstance(plain, dict):
        raise ValueError(f"{path}: must be the config of a run, got {type(plain).__name__}")
    flat = flatten(plain)
    if evaluation.report.decoding is not None:
        flat[_DECODING] = evaluation.report.decoding.method
    return flat


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that all runs have and whose values differ; where a run writes is none of them."""
    return [
        key
        for key in settings[0]
        if key != "name"
        and key not in NOT_IDENTITY
        and key.partition(".")[0] not in NOT_IDENTITY
        and all(key in one for one in settings)
        and len({repr(one[key]) for one in settings}) > 1
    ]


def _texts(values: Sequence[object]) -> list[str]:
    """The values on one line each, long ones shortened."""
    lines = ["null" if value is None else " ".join(str(value).split()) for value in values]
    names = list(dict.fromkeys(lines))
    shortened = dict(zip(names, shorten_names(names, 40), strict=True))
    return [shortened[line] for line in lines]


def _path_ends(folders: Sequence[Path]) -> list[str]:
    """As many last parts of the paths as make them differ."""
    # More parts until all names differ; the folders do, so this ends.
    length = 1
    while len({folder.parts[-length:] for folder in folders}) < len(folders):
        length += 1
    return ["/".join(folder.parts[-length:]) for folder in folders]
