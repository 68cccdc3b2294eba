"""Everything under conf/ composes to checked dataclasses; every wrong key, type, choice and value is told clearly."""

import ast
import copy
import dataclasses
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from causal_lm_router import config
from causal_lm_router.config import compose
from causal_lm_router.config.compose import compose_config
from causal_lm_router.config.plain import config_dict, dump_config
from causal_lm_router.config.resolve import resolve_config
from causal_lm_router.config.run_config import load_run_config

CONF = Path(compose.conf_dir())
CHOICES = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml") if path.parent.name != "hydra")
SOURCES = [choice for group, choice in CHOICES if group == "data"]
METHODS = [choice for group, choice in CHOICES if group == "baseline"]
# Files that hold settings of several groups.
PRESETS = [
    (group, choice)
    for group, choice in CHOICES
    if (CONF / group / f"{choice}.yaml").read_text(encoding="utf-8").startswith("# @package _global_")
]
OF_BASELINES = (("sweep", "baselines"), ("sweep", "published_baselines"))
SWEEPS = [(group, choice) for group, choice in PRESETS if group == "sweep"]

SEED_TABLE = {
    "base_model.name": "meta-llama/Llama-2-7b-hf",
    "lora.use_lora": True,
    "lora.lora_r": 16,
    "lora.lora_alpha": 32,
    "lora.lora_dropout": 0.1,
    "trainer.num_epochs": 3,
    "trainer.batch_size": 4,
    "optim.learning_rate": 0.00002,
    "prompt.max_length": 512,
    "lora.merge_lora": True,
    "inference.tensor_parallel_size": 1,
    "inference.max_new_tokens": 32,
    "inference.temperature": 0.1,
    "prompt.template": "Query: {query}\n\nBest LLM:",
    "prompt.target": " {name}",
}

# Key -> a value that its check refuses.
REFUSED_VALUES = {
    "name": "a/b",
    "sweep.name": "..",
    "seed": -1,
    "base_model.name": " ",
    "base_model.dtype": "int8",
    "lora.lora_r": 0,
    "lora.lora_alpha": 0,
    "lora.lora_dropout": 1.0,
    "lora.num_layers": 0,
    "lora.target_modules": [],
    "data.simulated.num_queries": 29,
    "data.simulated.num_attempts": 0,
    "data.simulated.discrimination": 0.0,
    "data.simulated.seed": -1,
    "data.validation_fraction": -0.5,
    "data.test_fraction": -0.5,
    "data.near_duplicate_threshold": math.nan,
    "data.max_query_chars": 0,
    "data.task_shrinkage": 1.1,
    "data.cost_weight": -1.0,
    "data.max_train_queries": 0,
    "prompt.template": "Best LLM:",
    "prompt.target": "{llm}",
    "prompt.max_length": 15,
    "objective.temperature": 0.0,
    "objective.valid_weight": -0.1,
    "decoding.cost_weight": -1.0,
    "optim.learning_rate": 0.0,
    "optim.weight_decay": -1.0,
    "optim.adam_betas": [0.9],
    "optim.warmup_ratio": 1.5,
    "optim.max_grad_norm": 0.0,
    "trainer.num_epochs": 0,
    "trainer.precision": "16",
    "trainer.num_threads": 0,
    "inference.max_new_tokens": 0,
    "inference.temperature": -0.1,
    "inference.top_p": 0.0,
    "parsing.fuzzy_threshold": 101.0,
    "evaluation.max_queries": 0,
    "tracking.wandb.init_timeout_s": 16,
}
# Values of choices that are no default -> what must stand in the error.
REFUSED_OF_CHOICES = {
    "data=jsonl data.path=x data.assumed_output_tokens=-1": "data.assumed_output_tokens must be ",
    "data=jsonl data.path=x data.test_path=y": "data.test_path must be null without data.use_source_split=true",
    "data=hub data.score_range=[5,1]": "data.score_range must be two numbers, the lowest score and the highest",
    "data=hub +data.columns.scores={a: x} +data.columns.costs={b: y}": "data.columns.costs must be a column for each",
    "baseline=knn_vote baseline.k=0": "baseline.k must be ",
    "baseline=svm baseline.svm_c=0": "baseline.svm_c must be ",
    "baseline=svm baseline.embedding=' '": "baseline.embedding must be ",
    "baseline=mlp baseline.mlp_epochs=0": "baseline.mlp_epochs must be ",
    "baseline=mlp baseline.mlp_hidden_units=[]": "baseline.mlp_hidden_units must be a list of integers",
    "baseline=mlp baseline.mlp_hidden_units=[8,0]": "baseline.mlp_hidden_units must be a list of integers",
    "baseline=matrix_factorisation baseline.mf_noise=-1": "baseline.mf_noise must be a number of at least 0",
    "baseline=matrix_factorisation baseline.mf_rank=0": "baseline.mf_rank must be ",
    "baseline=elo baseline.elo_gamma=0.5": "baseline.elo_gamma must be ",
    "baseline=encoder_classifier baseline.encoder_max_tokens=7": "baseline.encoder_max_tokens must be ",
    "baseline=few_shot baseline.num_shots=0": "baseline.num_shots must be ",
}
# Overrides that do not go together -> what must stand in the error.
CROSS_CHECKS = {
    "decoding.normalisation=mean": "decoding.normalisation must be sum unless decoding.method is scored, got 'mean'",
    "decoding=trie decoding.normalisation=prior": "decoding.normalisation must be sum unless .*, got 'prior'",
    "target=score_class objective=soft": "objective.kind must be completion .*, got 'soft'",
    "target=outcome": "objective.kind must be soft where target.kind is outcome, got 'completion'",
    "target=outcome objective=soft objective.balance_targets=true": "objective.balance_targets must be false where",
    "target=outcome objective=soft prompt=candidates": "prompt.template must be a text without {candidates} where",
    "target=outcome objective=soft decoding=scored decoding.normalisation=mean": "decoding.normalisation must be sum",
    "target=outcome objective=soft decoding=own decoding.function=a:b": "decoding.method must be another than own",
    "target=outcome objective=soft target.num_neighbours=0": "target.num_neighbours must be an integer of at least 1",
    "target=outcome objective=soft target.record=x": "target.record must be a text with some of {outcomes}, {similar}",
    "target=outcome objective=soft target.embedding=' '": "target.embedding must be minilm, a hub name or a folder",
    "objective=soft objective.whole_row=true": "objective.whole_row must be false unless objective.kind is completion",
    "objective=soft objective.end_token=false": "objective.end_token must be true unless objective.kind is completion",
    "objective=soft objective.cut_rows=true": "objective.cut_rows must be false unless objective.kind is completion",
    "target=token objective.end_token=false": "objective.end_token must be true where target.kind is token, got False",
    "objective=per_candidate decoding.normalisation=mean": "decoding.normalisation must be sum .*, got 'mean'",
    "decoding.cost_weight=1.0": "decoding.cost_weight must be 0 unless decoding.method is scored, got 1.0",
    "lora=all_linear lora.num_layers=2": r"lora.target_modules must be names of layers with .*, got \['all",
    "trainer.reuse_frozen_layers=true": "trainer.reuse_frozen_layers must be false unless lora.num_layers is set",
    "trainer.reuse_frozen_layers=true lora.num_layers=2 lora=none": "trainer.reuse_frozen_layers must be false unless",
    "trainer.reuse_frozen_layers=true lora.num_layers=2 objective=soft": "must be false unless target.kind is token",
    "data.validation_fraction=0.5 data.test_fraction=0.5": "data.test_fraction must be below 1, got 1.0",
    "baseline=zero_shot target=token": "target.kind must be name or short_id .*, got 'token'",
}

# Override -> what must stand in the error.
REFUSED_OVERRIDES = {
    "lora.lora_rank=3": ["lora.lora_rank", "its keys are use_lora, lora_r,", "did you mean lora.lora_r or "],
    "batch_size=8": ["key: batch_size", "did you mean trainer.batch_size or inference.batch_size?"],
    "lora.r=8": ["key: lora.r", "did you mean lora.lora_r?"],
    "lerning_rate=1": ["key: lerning_rate", "did you mean optim.learning_rate?"],
    "optim.learnin_rate=1": ["key: optim.learnin_rate", "did you mean optim.learning_rate?"],
    "epochs=8": ["key: epochs", "did you mean trainer.num_epochs"],
    "experimnt=quickstart": ["key: experimnt", "did you mean experiment?"],
    "base_modl=tiny": ["key: base_modl", "did you mean base_model"],
    "+lora.lora_rank=3": ["key: lora.lora_rank", "its keys are use_lora, lora_r,"],
    "++typo=1": ["key: typo", "its keys are name, seed, run_dir,"],
    "+typo=1": ["key: typo", "its keys are name, seed, run_dir,"],
    "+data.columns.typo=1": ["key: data.columns.typo", "its keys are query, task,"],
    "lora.lora_r=many": ["lora.lora_r must be an integer, got 'many'"],
    "trainer.num_epochs=1.5": ["trainer.num_epochs must be an integer, got 1.5"],
    "lora.use_lora=perhaps": ["lora.use_lora must be true or false, got 'perhaps'"],
    "lora.target_modules=q_proj": ["lora.target_modules must be a list such as [a,b], got 'q_proj'"],
    "lora.lora_r=null": ["lora.lora_r must be an integer, got None"],
    "data.tie_break=dearest": ["data.tie_break must be cheapest, best_on_train, first or random, got 'dearest'"],
    "target=names": [
        "target must be one of name, outcome, score_class, short_id, token, got 'names'",
        "mean target=name?",
    ],
    "decoding.also=[beam]": ["decoding.also must be a list of free, constrained, scored, trie or own, got 'beam'"],
    "parsing.mode=loose": ["parsing.mode must be strict, lenient, fuzzy or llmrouter, got 'loose'"],
    "lora=lorra": ["lora must be one of all_linear, default, none, got 'lorra'"],
    "lora=null": ["lora must be a choice of the group, got 'null'"],
    "experiment=quickstrat": ["experiment must be one of ", "got 'quickstrat'; did you mean experiment=quickstart?"],
    "+experiment=quickstart": ["experiment must be chosen without +, as experiment=quickstart"],
    "lora.lora_r=0": ["lora.lora_r must be an integer of at least 1, got 0"],
    "lora.lora_r=8,16": ["lora.lora_r=8,16", "--multirun"],
    "~lora.lora_r": ["lora.lora_r", "does not support deletion"],
    "~lora": ["key: lora"],
    "data=default": ["data must be one of csv, hub, jsonl, ", "got 'default'"],
    "name=${nmae}": ["'nmae' not found", "key: name"],
    "lora": ["an override must be group=choice or group.key=value, got 'lora'"],
    "lora.lora_r=[4": ["lora.lora_r must be an integer, got '[4'"],
    "+trainer.extra.a=b c(": ["trainer.extra.a must be ", """goes in quotes: "+trainer.extra.a='b c('\""""],
}

# File under conf/, a text in it, what is put in its place -> what must stand in the error.
REFUSED_FILES = {
    "unknown key": ("lora/default.yaml", "lora_r:", "lora_rank:", ["'lora/default'", "key: lora.lora_rank"]),
    "wrong type": ("optim/default.yaml", "0.01", "some", ["'optim/default'", "key: optim.weight_decay"]),
    "no such choice": (
        "hydra/data/default.yaml",
        "cheapest",
        "dearest",
        ["hydra/data/default'", "[cheapest,", "tie_break"],
    ),
    "missing key": ("lora/default.yaml", "lora_r: 16\n", "", ["lora.lora_r"]),
    "key twice": ("lora/default.yaml", "lora_alpha: 32", "lora_r: 8", ["conf/lora/default.yaml", "lora_r", "line 4"]),
    "not YAML": ("lora/default.yaml", "lora_r: 16", "lora_r: [", ["conf/lora/default.yaml", "line"]),
    "nested": ("tracking/default.yaml", "entity:", "entry:", ["'tracking/default'", "key: tracking.wandb.entry"]),
    "preset": (
        "experiment/quickstart.yaml",
        "learning_rate:",
        "learn_rate:",
        ["'experiment/quickstart'", "key: optim.learn_rate"],
    ),
    "top level": ("train.yaml", "seed: 0", "sede: 0", ["'train'", "key: sede"]),
    "value": (
        "optim/default.yaml",
        "warmup_ratio: 0.1",
        "warmup_ratio: 7",
        ["optim.warmup_ratio must be a number in 0..1, got 7.0"],
    ),
}


def read_yaml(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def overrides_of(group: str, choice: str) -> list[str]:
    chosen = [] if group in ("data", "experiment") else ["data=simulated"]
    chosen += ["baseline=best_single"] if (group, choice) in OF_BASELINES else []
    # A function of the user's has to be named.
    chosen += [f"{group}.function=my_lab:function"] if choice == "own" else []
    chosen += ["objective=soft"] if (group, choice) == ("target", "outcome") else []
    return [f"{group}={choice}", *chosen, "run_dir=x"]


def command_of(group: str, choice: str) -> str:
    """The command that takes a choice; most that `train` takes, `baseline` takes too."""
    return "baseline" if group == "baseline" or (group, choice) in OF_BASELINES else "train"


def leaves(plain: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in plain.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def lookup(plain: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        plain = plain[key]
    return plain


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """The plain defaults, for a test to change."""
    return config_dict(compose_config(["data=simulated", "run_dir=x"]))


def test_finds_the_groups() -> None:
    expected = {"base_model", "lora", "data", "prompt", "optim", "trainer", "inference", "parsing", "evaluation"}
    expected |= {"target", "objective", "decoding", "baseline"}
    assert {group for group, _ in CHOICES} >= expected | {"tracking", "experiment", "debug", "sweep"}
    assert {group for group, _ in PRESETS} == {"experiment", "debug", "sweep"}, "no other writes another group"
    assert set(SOURCES) == set(config.SOURCE_SCHEMAS)
    # Beside a file per method there are some of other settings, such as those that a paper has.
    assert set(METHODS) > set(config.BASELINE_SCHEMAS)
    assert {read_yaml(CONF / "baseline" / f"{name}.yaml")["method"] for name in METHODS} == set(config.BASELINE_SCHEMAS)


@pytest.mark.parametrize(("group", "choice"), [pair for pair in CHOICES if pair not in PRESETS])
def test_choices_inherit_from_their_groups_parent_alone(group: str, choice: str) -> None:
    parents = [entry for entry in read_yaml(CONF / group / f"{choice}.yaml").get("defaults", []) if entry != "_self_"]
    for parent in parents:
        folder = parent.removesuffix("@_here_").rpartition("/")[0]
        assert parent == "default" or folder in (f"/hydra/schema/{group}", f"/hydra/{group}"), parent


@pytest.mark.parametrize(("group", "choice"), CHOICES)
@pytest.mark.slow
def test_every_choice_composes_to_what_its_file_says(group: str, choice: str) -> None:
    composed = dict(leaves(config_dict(compose_config(overrides_of(group, choice), command_of(group, choice)))))
    said = read_yaml(CONF / group / f"{choice}.yaml")
    said.pop("defaults", None)
    said.pop("hydra", None)
    for key, value in leaves(said, "" if (group, choice) in PRESETS else f"{group}."):
        if value != "???":
            assert composed[key] == value, key


@pytest.mark.parametrize("experiment", [choice for group, choice in CHOICES if group == "experiment"])
def test_a_baseline_takes_every_experiment(experiment: str) -> None:
    compose_config(["baseline=random", f"experiment={experiment}", "debug=smoke", "run_dir=x"], "baseline")


@pytest.mark.parametrize("debug", [choice for group, choice in CHOICES if group == "debug"])
@pytest.mark.parametrize("experiment", [choice for group, choice in CHOICES if group == "experiment"])
@pytest.mark.slow
def test_every_preset_composes_with_every_other(experiment: str, debug: str) -> None:
    composed = compose_config([f"experiment={experiment}", f"debug={debug}", "run_dir=x"])
    assert composed.name == debug, "debug presets come last"


@pytest.mark.parametrize(("group", "choice"), PRESETS)
def test_presets_say_what_they_show_and_how_to_run_them(group: str, choice: str) -> None:
    lines = (CONF / group / f"{choice}.yaml").read_text(encoding="utf-8").splitlines()
    header = [line for line in lines if line.startswith("# ")]
    assert header[0] == "# @package _global_"
    assert [line.split(":")[0] for line in header[1:3]] == ["# Shows", "# Command"]
    assert len(header[1]) > len("# Shows: a figure")
    command = header[2].removeprefix("# Command: ").split()
    assert command[:2] == ["causal-lm-router", command_of(group, choice)]
    assert f"{group}={choice}" in command


def test_every_file_says_what_it_is() -> None:
    for path in CONF.rglob("*.yaml"):
        assert path.read_text(encoding="utf-8").startswith("# "), path


@pytest.mark.parametrize(("key", "value"), SEED_TABLE.items())
def test_plain_defaults_are_the_seed_table(key: str, value: object, defaults: dict[str, Any]) -> None:
    assert lookup(defaults, key) == value


FORMATS = {
    "data=simulated": ("bf16-mixed", "bfloat16", "auto"),
    "data=simulated trainer=cpu": ("auto", "bfloat16", "auto"),
    "experiment=quickstart": ("auto", "bfloat16", "auto"),
    # Published results and bitwise tests depend on these.
    "experiment=llmrouter_scored_cpu": ("32-true", "bfloat16", "float32"),
    "experiment=routellm_mmlu_cpu": ("32-true", "bfloat16", "float32"),
    "experiment=quickstart debug=smoke": ("32-true", "float32", "float32"),
}


@pytest.mark.parametrize("overrides", FORMATS)
@pytest.mark.slow
def test_number_formats(overrides: str) -> None:
    composed = compose_config([*overrides.split(), "run_dir=x"])
    assert (composed.trainer.precision, composed.base_model.dtype, composed.inference.dtype) == FORMATS[overrides]


@pytest.mark.parametrize(("group", "choice"), [("data", source) for source in SOURCES] + [("baseline", "svm")])
@pytest.mark.slow
def test_every_field_has_a_value_and_there_is_no_other(group: str, choice: str) -> None:
    def check(plain: dict[str, Any], settings: Any, prefix: str) -> None:
        assert list(plain) == [field.name for field in dataclasses.fields(settings)], prefix
        for key, value in vars(settings).items():
            if dataclasses.is_dataclass(value):
                check(plain[key], value, f"{prefix}{key}.")

    composed = compose_config(overrides_of(group, choice), command_of(group, choice))
    check(config_dict(composed), composed, "")


OF_OTHERS = {
    "data=jsonl": ["data.columns", "data.simulated", "data.allow_pickle", "data.query_path"],
    "data=simulated": ["data.path", "data.pool_path", "data.hub_split"],
    "data=routerdc": ["data.files", "data.drop_contaminated"],
}


@pytest.mark.parametrize(("choice", "key"), [(choice, key) for choice, keys in OF_OTHERS.items() for key in keys])
@pytest.mark.slow
def test_keys_of_another_source_are_refused(choice: str, key: str) -> None:
    for override in (f"{key}=x", f"+{key}=x"):
        with pytest.raises(ValueError, match=rf"key: {key}\); it is a key of data="):
            compose_config([choice, override, "run_dir=x"])


@pytest.mark.parametrize("override", ["seed=0", "data.path=x", "data.seed=0", "data.test_fraction=0.2", "debug=smoke"])
@pytest.mark.slow
def test_data_has_to_be_chosen(override: str) -> None:
    with pytest.raises(ValueError) as caught:
        compose_config([override])
    listed = "csv, hub, jsonl, llmrouter, mmlu_pro, own, preferences, routellm, routerbench, routerdc, simulated"
    assert f"data must be one of {listed}: choose it with data=" in str(caught.value)


def test_a_baseline_has_to_be_chosen() -> None:
    with pytest.raises(ValueError, match=r"baseline must be one of best_single, .*, zero_shot: choose it with"):
        compose_config(["data=simulated"], "baseline")


@pytest.mark.parametrize("method", ["svm", "oracle"])
@pytest.mark.slow
def test_a_baselines_run_is_named_after_its_method(method: str) -> None:
    composed = compose_config([f"baseline={method}", "experiment=quickstart", "debug=smoke"], "baseline")
    assert composed.name == method
    assert composed.run_dir.startswith(f"outputs/{method}/")


@pytest.mark.parametrize(("group", "choice"), SWEEPS)
@pytest.mark.slow
def test_sweep_presets_sweep_over_what_there_is(group: str, choice: str) -> None:
    settings = read_yaml(CONF / group / f"{choice}.yaml")["hydra"]
    assert settings["mode"] == "MULTIRUN"
    parser = OverridesParser.create()
    params = [f"{key}={values}" for key, values in settings["sweeper"]["params"].items()]
    assert params
    for override in parser.parse_overrides(params):
        assert override.is_sweep_override(), override.input_line
        values = list(override.sweep_string_iterator()) if override.is_discrete_sweep() else [override.value().start]
        for value in values:
            swept = f"{override.get_key_element()}={value}"
            compose_config([*overrides_of(group, choice), swept], command_of(group, choice))


def test_every_field_is_documented_and_has_no_default() -> None:
    modules = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(config.__file__).parent.glob("*.py")]
    nodes = [node for module in modules for node in module.body]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef) and node.name.endswith("Config")]
    assert "TrainConfig" in [node.name for node in classes]
    for node in classes:
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                where = f"{node.name}.{ast.unparse(field.target)}"
                assert field.value is None, f"{where}: values belong into conf/"
                documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert documented, f"{where} has no docstring"


@pytest.mark.parametrize(("key", "value"), REFUSED_VALUES.items())
@pytest.mark.slow
def test_values_out_of_range(key: str, value: object, defaults: dict[str, Any]) -> None:
    plain = copy.deepcopy(defaults)
    *parents, last = key.split(".")
    (lookup(plain, ".".join(parents)) if parents else plain)[last] = value
    with pytest.raises(ValueError) as caught:
        resolve_config(plain, config.TrainConfig)
    assert str(caught.value).startswith(f"{key} must be ")
    assert str(caught.value).endswith(f", got {value!r}")


@pytest.mark.parametrize(("overrides", "message"), [*REFUSED_OF_CHOICES.items(), *CROSS_CHECKS.items()])
@pytest.mark.slow
def test_values_that_do_not_go_together(overrides: str, message: str) -> None:
    command = "baseline" if overrides.startswith("baseline=") else "train"
    # A space inside a value is no end of an override.
    chosen = re.split(r" (?=[+\w.]+=)", overrides)
    with pytest.raises(ValueError, match=message):
        compose_config(["data=simulated", *chosen, "run_dir=x"], command)


def test_all_problems_are_told_at_once() -> None:
    wrong = ["seed=-1", "lora.lora_r=0", "target=score_class", "objective=soft", "optim.adam_betas=[0.9]"]
    with pytest.raises(ValueError) as caught:
        compose_config(["data=simulated", *wrong, "run_dir=x"])
    assert sorted(str(caught.value).split("\n")) == [
        "lora.lora_r must be an integer of at least 1, got 0",
        "objective.kind must be completion where target.kind is score_class, got 'soft'",
        "optim.adam_betas must be two numbers in 0..1, below 1, got [0.9]",
        "seed must be an integer in 0..2147483647, got -1",
    ]


@pytest.mark.parametrize(("override", "parts"), REFUSED_OVERRIDES.items(), ids=REFUSED_OVERRIDES)
@pytest.mark.slow
def test_wrong_overrides(override: str, parts: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        compose_config(["data=hub", override, "run_dir=x"])
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("override", ["+lora.lora_rank=3", "lora.lora_rank=3"])
def test_no_error_advises_what_would_fail(override: str) -> None:
    with pytest.raises(ValueError) as caught:
        compose_config(["data=simulated", override])
    assert "+lora" not in str(caught.value)


@pytest.mark.parametrize(("file", "old", "new", "parts"), REFUSED_FILES.values(), ids=REFUSED_FILES)
@pytest.mark.slow
def test_wrong_files(
    file: str, old: str, new: str, parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "conf"
    shutil.copytree(CONF, folder)
    text = (folder / file).read_text(encoding="utf-8")
    assert text.count(old) == 1
    (folder / file).write_text(text.replace(old, new), encoding="utf-8")
    monkeypatch.setattr(compose, "conf_dir", lambda: str(folder))
    with pytest.raises(ValueError) as caught:
        compose_config(["experiment=quickstart", "run_dir=x"])
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


TYPED = [
    "Q: {query} A:",
    "{query}",
    "It's {query}, \\ and ${name}",
    "[{query}]",
    "~/a[1]=(b)/{query}",
]


@pytest.mark.parametrize("text", TYPED)
def test_a_text_needs_no_quotes_of_hydras(text: str) -> None:
    composed = compose_config(["data=jsonl", f"prompt.template={text}", f"data.path={text}", "run_dir=x"])
    assert (composed.prompt.template, composed.data.path) == (text, text)


@pytest.mark.parametrize("text", ["1e3", "0012", "x=y", "a b"])
def test_a_text_that_looks_like_something_else_stays_a_text(text: str) -> None:
    composed = compose_config(["data=simulated", f"base_model.revision={text}", "run_dir=x"])
    assert composed.base_model.revision == text
    assert compose_config(["data=simulated", "base_model.revision=null", "run_dir=x"]).base_model.revision is None


def test_pass_through_dictionaries_take_any_key() -> None:
    composed = compose_config(
        [
            "+trainer.extra.max_steps=3",
            "+inference.engine_args={max_num_seqs: 4, enforce_eager: true}",
            "+inference.sampling_args.top_k=5",
            "data=hub",
            "+data.columns.scores={a: score_a}",
            "run_dir=x",
        ]
    )
    assert composed.trainer.extra == {"max_steps": 3}
    assert composed.inference.engine_args == {"max_num_seqs": 4, "enforce_eager": True}
    assert composed.inference.sampling_args == {"top_k": 5}
    assert composed.data.columns.scores == {"a": "score_a"}


def test_name_and_run_dir_follow_what_is_run(defaults: dict[str, Any]) -> None:
    assert defaults["name"] == "llama-2-7b-hf_simulated"
    composed = compose_config(["base_model=tiny", "data=jsonl"])
    parent, name, time = composed.run_dir.split("/")
    assert (parent, name) == ("outputs", "tiny-llama_jsonl")
    assert len(time) == len("2026-01-31_12-00-00")


def test_a_normalisation_that_nothing_used_is_no_reason_to_refuse_a_run(
    defaults: dict[str, Any], tmp_path: Path
) -> None:
    plain = {**defaults, "decoding": {**defaults["decoding"], "normalisation": "mean"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    assert load_run_config(tmp_path)["decoding"]["normalisation"] == "sum"
    plain["decoding"]["also"] = ["scored"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    assert load_run_config(tmp_path)["decoding"]["normalisation"] == "mean"


def test_a_written_config_comes_back_whole(tmp_path: Path) -> None:
    texts = ["trainer.devices='2'", r"prompt.template='a \\ \${b} é: {query} #:'", "optim.learning_rate=1e-7"]
    composed = compose_config(
        ["data=jsonl", *texts, "run_dir=x", "+trainer.extra={a: [1, {b: null}]}", "data.path='null'"]
    )
    assert composed.prompt.template == "a \\\\ ${b} é: {query} #:"
    (tmp_path / "config.yaml").write_text(dump_config(composed), encoding="utf-8")
    plain = {**load_run_config(tmp_path), "run_dir": "x"}
    assert resolve_config(plain, config.TrainConfig) == composed
    assert plain == config_dict(composed)
