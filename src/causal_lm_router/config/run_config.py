"""The config of a run folder: read, brought up to date, and made the start of what Hydra composes."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from causal_lm_router import config as schema
from causal_lm_router.config.keys import BASELINE, SCHEMAS, VARIANTS
from causal_lm_router.config.overrides import take_literally
from causal_lm_router.config.permissions import take_from_folder
from causal_lm_router.config.resolve import resolve_config, schema_of, variant_of
from causal_lm_router.config.yaml_file import read_yaml
from causal_lm_router.files.writing import refuse_links

ADDED_KEYS: dict[str, dict[str, Any]] = {
    "base_model": {"hub_name": None},
    "data": {
        "test_fold": 0,
        "group_by": None,
        "test_tasks": [],
        "skip_tasks": [],
        "shuffle_train_scores": False,
        "score_range": [0.0, 1.0],
    },
    "objective": {
        "function": None,
        "options": {},
        "whole_row": False,
        "end_token": True,
        "cut_rows": False,
        "balance_targets": False,
    },
    "decoding": {"function": None, "options": {}},
    "baseline": {"mlp_batch_size": 200, "mf_noise": 0.1},
}
"""Keys that run folders of earlier versions lack, and the values that stand for what those versions did."""


def register_run(command: str, arguments: list[str], *, required: bool, takes_baselines: bool) -> None:
    """Make the config of the run folder named by `run_dir=` the node `run`, where commands on a run start.

    Permissions in it are left out; see `take_from_folder`. Nor is anything written through a link in the folder: it
    may come from elsewhere.

    Its schema becomes the node `run_schema`, for commands that take baselines too. Without `run_dir=` the node stays
    empty, enough for `--help` and completion, unless one is required.

    Raises:
        FileNotFoundError: the folder or its config.yaml is missing.
        ValueError: the config there is not that of a run, or of a baseline where none is taken, it holds permissions
            that are not given again, the folder holds links that lead out of it, or `run_dir=` is required and missing.
    """
    # Read before Hydra runs, since what it composes depends on the folder.
    run_dirs = [argument for argument in arguments if argument.startswith("run_dir=")]
    if not run_dirs:
        if required:
            raise ValueError("run_dir must be the folder of a run, got none")
        return
    # The last one wins, as for every override. Hydra's parser knows its quotes and escapes.
    run_dir = str(OverridesParser.create().parse_override(run_dirs[-1]).value())
    node = load_run_config(Path(run_dir))
    if BASELINE in node and not takes_baselines:
        raise ValueError(f"run_dir must hold a trained router, got {run_dir}, which holds a baseline")
    node = take_from_folder(run_dir, node, arguments, command)
    # Routing writes nothing into the folder.
    if command != "route":
        refuse_links(Path(run_dir))
    # A group chosen on the command line takes the place of the run's own, whose keys may be others.
    chosen = {argument.split("=")[0] for argument in arguments}
    node = {key: value for key, value in node.items() if key not in VARIANTS or key not in chosen}
    # Hydra checks every override against the schema, so it has to be that of the run's source and baseline.
    store = ConfigStore.instance()
    for name, target in {**SCHEMAS, "run_schema": schema.TrainConfig}.items():
        store.store(name=name, node=schema_of(node, target))
    store.store(name="run", node=take_literally(node))


def load_run_config(run_dir: Path) -> dict[str, Any]:
    """Return the resolved config a run folder was made with, without its `run_dir` (the folder may have moved).

    Raises:
        FileNotFoundError: there is no config.yaml in the folder.
        ValueError: the config.yaml there is not that of a run.
    """
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"run_dir must be a run folder, got {run_dir}: no config.yaml there")
    # Bring folders of earlier versions up to date, then check the whole as if it were composed now.
    loaded = read_yaml(path)
    try:
        if not isinstance(loaded, dict):
            raise ValueError("it holds no keys")
        for group, keys in ADDED_KEYS.items():
            if isinstance(loaded.get(group), dict):
                loaded[group] = {**keys, **loaded[group]}
        loaded = _without_keys_of_other_variants(loaded)
        loaded = _with_list_of_widths(_without_unused_normalisation(loaded))
        resolve_config(loaded, schema.TrainConfig)
    except ValueError as error:
        # One line for the terminal.
        problem = "; ".join(" ".join(line.split()) for line in str(error).splitlines())
        raise ValueError(f"{path}: this is not the config of a run: {problem}") from error
    del loaded["run_dir"]
    return loaded


def _with_list_of_widths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with a list of one width where an earlier version of `baseline=mlp` had one hidden layer."""
    baseline = settings.get(BASELINE)
    if not isinstance(baseline, Mapping) or not isinstance(baseline.get("mlp_hidden_units"), int):
        return dict(settings)
    return {**settings, BASELINE: {**baseline, "mlp_hidden_units": [baseline["mlp_hidden_units"]]}}


def _without_unused_normalisation(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with `sum` for a normalisation that no decoding used, which earlier versions took."""
    decoding = settings.get("decoding")
    if not isinstance(decoding, Mapping) or not isinstance(decoding.get("also"), list):
        return dict(settings)
    scores = schema.DecodingMethod.scored in (decoding.get("method"), *decoding["also"])
    return {**settings, "decoding": {**decoding, **({} if scores else {"normalisation": "sum"})}}


def _without_keys_of_other_variants(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without keys that matter to other sources or baselines alone.

    Older run folders hold them: every source and every baseline had the keys of all then.
    """
    kept = dict(settings)
    for group, (key, variants) in VARIANTS.items():
        part = settings.get(group)
        variant = variant_of(part, key, variants)
        if isinstance(part, Mapping) and variant is not None:
            # Only keys that another variant knows are dropped: a key that none knows is a mistake and stays to be told.
            of_all = {field.name for each in variants.values() for field in fields(each)}
            foreign = of_all - {field.name for field in fields(variant)}
            kept[group] = {name: value for name, value in part.items() if name not in foreign}
    return kept
