"""Configurations: groups of runs that differ in their seed alone, named by the settings that were swept."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from causal_lm_router.config import NOT_IDENTITY, BaselineMethod
from causal_lm_router.evaluation.formatting import shorten_names
from causal_lm_router.sweeps.report.runs import FOLD, Run

# Seeds that may follow the run's (`data.split_seed=${seed}`). Where they do in every run, they belong to the replicate.
_FOLLOWING_SEEDS = ("data.split_seed", "data.simulated.seed", "inference.seed")
ABSENT = "(absent)"
"""Stands for the value of a setting that a run's config lacks."""
METHOD = "baseline.method"
"""Setting that names a run's baseline; trained routers lack it."""
_ORACLES = (BaselineMethod.oracle.value, BaselineMethod.cheapest_oracle.value)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The finished runs of one configuration, by seed and fold, with the values of the swept settings."""

    number: int
    """Counts from 1 in the order of the report."""
    swept: Mapping[str, Any]
    texts: Mapping[str, str]
    """The swept values as they are printed; shortened where that keeps them different."""
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """`lora.lora_r=16 optim.learning_rate=0.0005`: every swept setting."""
        named = " ".join(f"{key}={text}" for key, text in self.texts.items())
        return named or "the only configuration"

    @property
    def num_seeds(self) -> int:
        """Number of different seeds; each may have several folds."""
        return len({run.seed for run in self.runs})

    @property
    def is_oracle(self) -> bool:
        """Whether it is a baseline that knows the scores of the queries it is asked, those of validation included."""
        return self.runs[0].config.get(METHOD) in _ORACLES


def format_value(value: object) -> str:
    """Return a setting in full, as on the command line; floats in their shortest exact digits."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def swept_keys(runs: Sequence[Run]) -> list[str]:
    """Return the settings whose values differ among the runs, in the order of the config.

    Trained routers lack all settings of baselines. Of these only `baseline.method` tells the two kinds apart.
    """
    # A run that was not started has no config.
    configs = [run.config for run in runs if run.config]
    seeds = [config["seed"] for config in configs]
    # Neither seed and fold nor where a run writes makes another configuration.
    ignored = {"seed", FOLD, *NOT_IDENTITY}
    if len(set(seeds)) > 1:
        ignored |= {key for key in _FOLLOWING_SEEDS if [config.get(key) for config in configs] == seeds}
    trained = {config.get("name") for config in configs if METHOD not in config}
    if len(trained) <= 1 and all(config.get("name") == config[METHOD] for config in configs if METHOD in config):
        ignored.add("name")  # it follows from the method
    keys = dict.fromkeys(key for config in configs for key in config)
    return [
        key
        for key in keys
        if key not in ignored
        and key.partition(".")[0] not in NOT_IDENTITY
        and len({_exact(config.get(key, ABSENT)) for config in configs if key in config or _tells_absent(key)}) > 1
    ]


def mark_repeated(runs: Sequence[Run]) -> list[Run]:
    """Return the runs; a second run of one configuration and seed is marked `repeated` and loses its evaluation."""
    keys, first = swept_keys(runs), dict[tuple[Any, ...], Run]()
    marked = []
    for run in runs:
        # The first finished run of each configuration and seed counts; unfinished ones are not compared.
        same = first.setdefault((run.replicate, *_identity(run, keys)), run) if run.test else run
        detail = f"same configuration and seed as {same.folder}"
        marked.append(run if same is run else replace(run, state="repeated", detail=detail, test=None))
    return marked


def group_runs(runs: Sequence[Run]) -> list[Configuration]:
    """Return the configurations of the finished runs, ordered by their swept values: numbers by size, then texts."""
    keys = swept_keys(runs)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if run.test:
            groups.setdefault(_identity(run, keys), []).append(run)
    # All runs of a group have the same swept values.
    ordered = sorted(groups.values(), key=lambda group: [_order(group[0].config.get(key)) for key in keys])
    texts = {key: _texts([group[0].config.get(key, ABSENT) for group in ordered]) for key in keys}
    return [
        Configuration(
            number=number,
            swept={key: group[0].config.get(key, ABSENT) for key in keys},
            texts={key: texts[key][number - 1] for key in keys},
            runs=tuple(sorted(group, key=lambda run: [_order(part) for part in run.replicate])),
        )
        for number, group in enumerate(ordered, start=1)
    ]


def find_configuration(configurations: Sequence[Configuration], text: str) -> Configuration:
    """Return the one configuration with the settings in `text`: `key=value` pairs, split by commas or spaces.

    Raises:
        ValueError: no configuration has these settings, or several have.
    """
    # Commas and spaces inside a value do not split it: a separator is followed by a key and `=`.
    pairs = [pair.partition("=") for pair in re.split(r"[,\s]+(?=[\w.]+=)", text.strip())]
    fitting = [
        configuration
        for configuration in configurations
        if all(
            separator
            and key in configuration.swept
            and (value.strip() == configuration.texts[key] or _is_value(configuration.swept[key], value))
            for key, separator, value in pairs
        )
    ]
    if len(fitting) != 1:
        names = " | ".join(configuration.name for configuration in configurations)
        raise ValueError(
            f"baseline must be best_single or fit one of the configurations, got {text!r}, which fits {len(fitting)}: "
            f"{names}"
        )
    return fitting[0]


def _texts(values: Sequence[object]) -> list[str]:
    """The values as printed: floats with four digits and texts of 40 characters where that keeps them different."""
    exact = [format_value(value) for value in values]
    rounded = [f"{value:.4g}" if isinstance(value, float) else text for value, text in zip(values, exact, strict=True)]
    lines = [text.replace("\n", "\\n") for text in (rounded if len(set(rounded)) == len(set(exact)) else exact)]
    # Equal values stay equal: each is shortened once.
    names = list(dict.fromkeys(lines))
    shortened = dict(zip(names, shorten_names(names, 40), strict=True))
    return [shortened[line] for line in lines]


def _is_value(value: object, text: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # 5e-4 and 0.0005 are one value.
        try:
            return math.isclose(value, float(text), rel_tol=1e-12)
        except ValueError:
            return False
    return format_value(value) == text.strip()


def _tells_absent(key: str) -> bool:
    """Whether a run without the setting differs from one that has it, as with entries of a dictionary."""
    return key == METHOD or not key.startswith("baseline.")


def _identity(run: Run, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(_exact(run.config.get(key, ABSENT)) for key in keys)


def _exact(value: object) -> str:
    # 1, 1.0 and true are equal in Python; a setting that is 1 in one run and 1.0 in another is the same setting.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return json.dumps(float(value) if is_number else value, default=str)  # type: ignore[arg-type]


def _order(value: object) -> tuple[int, float, str]:
    """Sort key: null, then numbers by size, then texts."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (1, float(value), "")
    return (0, 0.0, "") if value is None else (2, 0.0, format_value(value))
