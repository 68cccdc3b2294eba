"""From YAML under `conf/`, a run folder and command-line overrides to checked dataclasses."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from causal_lm_router import config as schema
from causal_lm_router.config.checks import Settings, as_file_name, one_of
from causal_lm_router.config.honoured import check_honoured
from causal_lm_router.config.keys import (
    BASELINE,
    SCHEMAS,
    VARIANTS,
    Key,
    did_you_mean,
    find_keys,
    similar_keys,
    similar_words,
)
from causal_lm_router.config.overrides import allow_new_keys, quote_text, read_overrides, take_literally
from causal_lm_router.config.permissions import take_from_folder
from causal_lm_router.config.plain import config_dict, identity_of
from causal_lm_router.config.yaml_file import read_yaml
from causal_lm_router.files.writing import refuse_links

Schema = TypeVar("Schema", bound=Settings)
ADDED_KEYS: dict[str, dict[str, Any]] = {
    "base_model": {"hub_name": None},
    "objective": {"function": None, "options": {}},
    "decoding": {"function": None, "options": {}},
}
"""Keys that run folders of earlier versions lack, and the values that stand for what those versions did."""
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError)


def conf_dir() -> str:
    """Return the absolute path of the config folder: inside the installed package, else the checkout's `conf/`.

    Raises:
        FileNotFoundError: there is neither.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise FileNotFoundError(f"no conf/train.yaml in {package} or {package.parents[1]}: reinstall causal-lm-router")


def register_schemas() -> None:
    """Make the schemas known to Hydra; calling it again changes nothing."""
    # The schemas of whole commands, from which the files under conf/ start.
    store = ConfigStore.instance()
    for name, node in SCHEMAS.items():
        store.store(name=name, node=node)
    # Schemas of single choices lie in the group `hydra`, which --help leaves out.
    for group, (_, variants) in VARIANTS.items():
        for value, node in variants.items():
            store.store(group=f"hydra/schema/{group}", name=str(value), node=node)
    # What `register_run` fills; `--help` shows commands on runs without one.
    store.store(name="run_schema", node=schema.TrainConfig)
    store.store(name="run", node={})


def job_id(config: schema.TrainConfig) -> str:
    """Return the id of a job (12 hexadecimal digits), a hash of all settings that its result depends on."""
    # Sorted keys: the same settings written in another order are the same job. 12 digits are short enough for a folder.
    return hashlib.sha256(json.dumps(identity_of(config_dict(config)), sort_keys=True).encode()).hexdigest()[:12]


def resolve_job(composed: DictConfig) -> schema.TrainConfig:
    """Return the checked config of a job whose composed config holds Hydra's own node too.

    Raises:
        ValueError: as `resolve_config`.
    """
    # Our schema knows nothing of Hydra's own node.
    ours = [str(key) for key in composed if key != "hydra"]
    return resolve_config(OmegaConf.masked_copy(composed, ours), schema.TrainConfig)


# On import: the workers of a launcher unpack a job, and with it this module, before they resolve its config.
OmegaConf.register_new_resolver(
    "base_model_name", lambda name: as_file_name(Path(str(name)).name.lower()), replace=True
)
OmegaConf.register_new_resolver("first_set", lambda first, second: second if first is None else first, replace=True)
OmegaConf.register_new_resolver("job_id", lambda *, _root_: job_id(resolve_job(_root_)), replace=True)


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
        store.store(name=name, node=_schema_of(node, target))
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
        loaded = _without_keys_of_other_variants(loaded)
        for group, keys in ADDED_KEYS.items():
            if isinstance(loaded.get(group), dict):
                loaded[group] = {**keys, **loaded[group]}
        loaded = _without_unused_normalisation(loaded)
        resolve_config(loaded, schema.TrainConfig)
    except ValueError as error:
        # One line for the terminal.
        problem = "; ".join(" ".join(line.split()) for line in str(error).splitlines())
        raise ValueError(f"{path}: this is not the config of a run: {problem}") from error
    del loaded["run_dir"]
    return loaded


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
        variant = _variant(part, key, variants)
        if isinstance(part, Mapping) and variant is not None:
            # Only keys that another variant knows are dropped: a key that none knows is a mistake and stays to be told.
            of_all = {field.name for each in variants.values() for field in fields(each)}
            foreign = of_all - {field.name for field in fields(variant)}
            kept[group] = {name: value for name, value in part.items() if name not in foreign}
    return kept


def resolve_config(composed: DictConfig | Mapping[str, Any], target: type[Schema]) -> Schema:
    """Return the composed config (or plain values) as a checked dataclass.

    The config is merged into a fresh schema first: a key added with `+key=` passes Hydra, but not this. Settings of a
    baseline give, for TrainConfig as `target`, its subclass BaselineRunConfig.

    Raises:
        ValueError: an unknown key, a value of the wrong type, a missing value, or a value its check refuses.
    """
    try:
        # Interpolations are resolved here; from now on a text is taken as it stands.
        plain = OmegaConf.to_container(composed, resolve=True) if isinstance(composed, DictConfig) else composed
        merged = OmegaConf.merge(_schema_of(plain, target), take_literally(plain))
        resolved = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(describe_error(error)) from error
    assert isinstance(resolved, target)
    # Types fit by now. Values are checked next, and all problems are told at once.
    if problems := [*_unwritable_texts(config_dict(resolved)), *resolved.problems()]:
        raise ValueError("\n".join(problems))
    return resolved


def _unwritable_texts(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield a sentence for each text that no file and no path can hold."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _unwritable_texts(value, f"{prefix}{key}.")
        elif isinstance(value, str) and ("\0" in value or any("\ud800" <= char <= "\udfff" for char in value)):
            yield f"{prefix}{key} must be a text without NUL and without halves of surrogate pairs, got {value!r}"


def _schema_of(settings: Any, target: type) -> Any:
    """Return the empty schema of these settings: `target`, with the subclass that each of VARIANTS asks for."""
    if target is schema.TrainConfig and BASELINE in settings:
        target = schema.BaselineRunConfig
    # OmegaConf takes a node's keys from its class, so the class must be that of the chosen source and method.
    node = OmegaConf.structured(target)
    for group, (key, variants) in VARIANTS.items():
        part = settings.get(group)
        variant = _variant(part, key, variants)
        # `prepare` has no data, so not every schema has every group.
        if variant is not None and group in {field.name for field in fields(target)}:
            node[group] = OmegaConf.structured(variant)
    return node


def _variant(part: Any, key: str, variants: Mapping[Any, type]) -> type | None:
    """Return the schema that a part of the settings asks for; None where it asks for none, or is no part at all."""
    value = part.get(key) if isinstance(part, Mapping) else None
    # A list or a dictionary there is a mistake, and cannot be looked up.
    return variants.get(value) if isinstance(value, str) else None


def compose_config(overrides: list[str], config_name: str = "train") -> schema.TrainConfig:
    """Return the config that `causal-lm-router <config_name> <overrides>` would run with, outside a Hydra application.

    `${hydra:...}` values need the application.

    Raises:
        ValueError: an override, a file or a value that the schema or Hydra refuses.
    """
    register_schemas()
    return _compose(read_overrides(overrides), config_name, schema.TrainConfig)


@overload
def compose_on_run(
    command: Literal["evaluate"], run_dir: str | Path, overrides: Iterable[str]
) -> schema.EvaluateConfig: ...
@overload
def compose_on_run(command: Literal["route"], run_dir: str | Path, overrides: Iterable[str]) -> schema.RouteConfig: ...
def compose_on_run(command: str, run_dir: str | Path, overrides: Iterable[str]) -> Settings:
    """Return the config that a command on a run would run with, outside a Hydra application.

    Raises:
        FileNotFoundError: the folder is no run folder.
        ValueError: an override that the command does not honour, or that cannot be used.
    """
    register_schemas()
    check_honoured(command, overrides)
    words = [quote_text(f"run_dir={run_dir}"), *read_overrides(overrides)]
    register_run(command, words, required=True, takes_baselines=False)
    return _compose(words, command, SCHEMAS[f"{command}_schema"])


def _compose(overrides: list[str], config_name: str, target: type[Schema]) -> Schema:
    # A command that was run in this process before may have left its own.
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=conf_dir()):
        try:
            composed = compose(config_name=config_name, overrides=allow_new_keys(overrides))
        except COMPOSITION_ERRORS as error:
            raise ValueError(describe_error(error)) from error
        return resolve_config(composed, target)


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
