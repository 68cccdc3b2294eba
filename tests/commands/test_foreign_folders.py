"""Run folders and sweep folders from elsewhere: no command on one runs code of its author or writes outside of it.

Each of HOSTILE makes a folder that tries. If any code of it runs, a canary file appears in the place OUTSIDE, and
whatever is written there by other ways shows as well.
"""

import contextlib
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from causal_lm_router.config.compose import compose_config
from causal_lm_router.config.permissions import READS
from causal_lm_router.config.plain import config_dict
from tests.conftest import Result

pytestmark = pytest.mark.slow

COMMANDS = {
    "evaluate": ["evaluate", "run_dir={folder}"],
    "route": ["route", "run_dir={folder}", "query=hello"],
    "merge": ["merge", "run_dir={folder}"],
    "push": ["push", "run_dir={folder}", "repo=a/b"],
    "resume": ["resume", "run_dir={folder}"],
    "status": ["status", "{folder}"],
    "report": ["report", "{folder}", "--output", "reported"],
    "compare": ["compare", "{folder}", "nowhere"],
}
EVIL = "import pathlib\npathlib.Path({canary!r}).touch()\n"
Hostile = Callable[[Path, Path], None]
"""Turns the run folder (the first path) into a hostile one; the second path is OUTSIDE."""


class Touches:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def set_keys(**values: Any) -> Hostile:
    """Write settings, by dotted key with `__` for the dots, into config.yaml; OUTSIDE is put in for `{outside}`."""

    def make(folder: Path, outside: Path) -> None:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        for key, value in values.items():
            *groups, last = key.split("__")
            part = settings
            for group in groups:
                part = part.setdefault(group, {})
            part[last] = json.loads(json.dumps(value).replace("{outside}", str(outside)))
        (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    return make


def write(name: str, text: str) -> Hostile:
    """Put a file into the folder; OUTSIDE is put in for `{outside}`."""
    return lambda folder, outside: (folder / name).write_text(text.replace("{outside}", str(outside)))  # type: ignore[return-value]


def link(name: str, target: str = "target") -> Hostile:
    """Put a link to a file or folder OUTSIDE in the place of one of the folder's own."""

    def make(folder: Path, outside: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(outside / target)

    return make


def remote_code(folder: Path, outside: Path) -> None:
    """A base model whose code comes with it, and the permission to run it."""
    base = folder / "base"
    base.mkdir()
    (base / "evil.py").write_text(EVIL.format(canary=str(outside / "canary")))
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.T", None]}
    (base / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    (base / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto, "tokenizer_class": "T"}))
    set_keys(base_model__name=str(base), base_model__origin="hub", base_model__trust_remote_code=True)(folder, outside)


def pickled_table(folder: Path, outside: Path) -> None:
    (folder / "table.pkl").write_bytes(pickle.dumps(Touches(outside / "canary")))
    data = {"source": "routerbench", "path": str(folder / "table.pkl"), "allow_pickle": True}
    settings = config_dict(compose_config(["data=routerbench", "debug=smoke", "run_dir=x"]))
    settings["data"] |= data
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def own_module(group: str, **more: Any) -> Hostile:
    def make(folder: Path, outside: Path) -> None:
        (folder / "evil_lab.py").write_text(EVIL.format(canary=str(outside / "canary")) + "def f(*a): ...\n")
        set_keys(**{f"{group}__function": "evil_lab:f", **{f"{group}__{key}": value for key, value in more.items()}})(
            folder, outside
        )

    return make


def log_job(job: str) -> Hostile:
    """Make the folder that of a sweep whose log names this job."""

    def make(folder: Path, outside: Path) -> None:
        (folder / "sweep.json").write_text(json.dumps({"name": "s", "uid": "u", "created": "2026-01-01T00:00:00"}))
        event = json.dumps({"job": job, "state": "running", "time": 1.0}).replace("{outside}", str(outside))
        (folder / "jobs.jsonl").write_text(f"{event}\n")

    return make


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
ASKED = "must be given again"
HOSTILE: dict[str, tuple[Hostile, str]] = {
    # Code
    "code with the weights": (remote_code, f"base_model.trust_remote_code {ASKED}"),
    "a pickled table": (pickled_table, f"data.allow_pickle {ASKED}"),
    "a reader of data": (own_module("data", source="own", path=None, options={}), f"data.function {ASKED}"),
    "an objective": (own_module("objective", kind="own"), f"objective.function {ASKED}"),
    "a decoding": (own_module("decoding", method="own"), f"decoding.function {ASKED}"),
    "a kernel of the hub": (
        set_keys(base_model__attn_implementation="evil/kernel"),
        f"base_model.attn_implementation {ASKED}",
    ),
    "a package inside another": (
        set_keys(base_model__origin="packaged", base_model__package="antigravity.x", base_model__gguf_file="*"),
        "base_model.package must be a package without dots",
    ),
    **{
        f"the engine's {key}": (set_keys(**{f"inference__engine_args__{key}": value}), f"engine_args.{key} {ASKED}")
        for key, value in {
            "model": "{outside}/model",
            "tokenizer": "{outside}/model",
            "worker_cls": "evil_lab.Worker",
            "worker_extension_cls": "evil_lab.Worker",
            "logits_processors": ["evil_lab:P"],
            "hf_overrides": {"auto_map": {"AutoConfig": "evil.C"}},
            "reasoning_parser_plugin": "{outside}/evil.py",
            "speculative_config": {"model": "evil/model"},
            "kv_transfer_config": {"kv_connector_module_path": "evil_lab"},
            "load_format": "pt",
            "max_num_seqs": {"a dictionary": "for a number"},
            "an_argument_to_come": "evil",
            "download_dir": "{outside}/models",
            "profiler_config": {"torch_profiler_dir": "{outside}/p"},
            "hf_token": "${oc.env:HOME}",
        }.items()
    },
    **{
        f"the trainer's {key}": (set_keys(**{f"trainer__extra__{key}": value}), f"trainer.extra.{key} {ASKED}")
        for key, value in {
            "plugins": ["evil"],
            "strategy": "deepspeed",
            "default_root_dir": "{outside}/root",
            "profiler": "advanced",
            "logger": True,
        }.items()
    },
    "generation's code": (
        set_keys(inference__sampling_args__custom_generate="evil/generate"),
        f"inference.sampling_args.custom_generate {ASKED}",
    ),
    **{
        f"remote code in {name}": (
            set_keys(**{f"inference__{name}__trust_remote_code": True}),
            f"inference.{name}.trust_remote_code must be left out",
        )
        for name in ("engine_args", "sampling_args")
    },
    "a Python object": (
        write("config.yaml", "seed: !!python/object/apply:os.system [id]\n"),
        "constructor for the tag",
    ),
    # Records for others
    "another's W&B team": (set_keys(tracking__wandb__entity="evil"), f"tracking.wandb.entity {ASKED}"),
    # Names and settings that lead elsewhere
    **{
        f"{key}={value!r}": (set_keys(**{key.replace(".", "__"): value}), f"{key} must be a name of letters")
        for key, value in (
            ("base_model.name", "../../outside/base"),
            ("base_model.name", "{outside}/base"),
            ("name", "../outside"),
            ("name", "a\x1b[2J"),
            ("name", "-rf"),
            ("name", ".."),
            ("name", "a\nb"),
            ("sweep.name", ".."),
            ("sweep.name", "-x"),
            ("sweep.name", ".x"),
        )
    },
    "a NUL": (set_keys(name="a\0b"), "name must be a text without NUL"),
    "a revision": (set_keys(base_model__revision="../../../outside"), "base_model.revision must be a branch"),
    "an output_dir": (set_keys(output_dir="{outside}/evaluation"), "Key 'output_dir' not in"),
    "Hydra's folder": (set_keys(hydra={"run": {"dir": "{outside}/hydra"}}), "Key 'hydra' not in"),
    "a searched folder": (set_keys(hydra={"searchpath": ["{outside}"]}), "Key 'hydra' not in"),
    # Links
    **{
        f"a link for {name}": (link(name, target), f"{name}: must lie in")
        for name, target in (
            ("evaluations", "target"),
            ("adapter", "target"),
            ("checkpoints", "target"),
            ("merged", "target"),
            ("wandb", "target"),
            ("tensorboard", "target"),
            ("decodings", "nothing there"),
            ("report.json", "file"),
            ("metrics.csv", "file"),
            ("evaluate.log", "file"),
            ("resume.log", "file"),
            ("adapter/README.md", "file"),
            (".job.lock", "file"),
        )
    },
    "a pipe": (lambda folder, outside: os.mkfifo(folder / "report.json"), "must be a file or a folder"),
    # Sweeps
    **{
        f"the job {job}": (log_job(job), "jobs.jsonl: job must be a name of letters")
        for job in ("../outside/target", "{outside}/target", "..")
    },
    # Time and memory
    "aliases": (write("config.yaml", BOMB), "config.yaml:2: must be written out, got the alias *a0"),
    "deep nesting": (write("config.yaml", "x: " + "[" * 100_000), "must be nested at most 32 deep"),
    "a long number": (write("config.yaml", "seed: " + ":".join(["1"] * 200_000)), "must hold words of at most"),
    "a large file": (write("config.yaml", "# " + "x" * 3_000_000), "config.yaml: must have at most"),
    "a list for a source": (set_keys(data__source=["simulated"]), "config.yaml: this is not the config of a run"),
}
assert len(HOSTILE) >= 40


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file and a folder in it; the cache is in a place of its own beside it."""
    folder = tmp_path / "outside"
    (folder / "target").mkdir(parents=True)
    (folder / "target" / "config.yaml").write_text("seed: 1\n")
    (folder / "file").write_text("kept\n")
    monkeypatch.setenv("CAUSAL_LM_ROUTER_CACHE", str(tmp_path / "cache" / "inner"))
    return folder


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """A run folder as an interrupted run leaves it, of the tiny base model."""
    folder = tmp_path / "foreign"
    (folder / "adapter").mkdir(parents=True)
    settings = config_dict(compose_config(["data=simulated", "debug=smoke", "tracking=local", "run_dir=x"]))
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {str(path): path.read_text() if path.is_file() else "" for path in sorted(folder.rglob("*"))}


def runs(command: str, folder: Path) -> list[str]:
    return [argument.format(folder=folder) for argument in COMMANDS[command]]


@pytest.mark.parametrize(("make", "refusal"), HOSTILE.values(), ids=HOSTILE)
def test_what_a_folder_may_not_do_is_refused(
    make: Hostile, refusal: str, main: Callable[..., Result], untrained: Path, outside: Path
) -> None:
    make(untrained, outside)
    before, start = contents(outside), time.monotonic()
    refused = []
    for command in asked_by(refusal):
        result = main(*runs(command, untrained))
        # Whatever a command says of the folder, it says it in one line, and no character acts on the terminal.
        if result.status:
            assert (result.errors[:7], result.errors.count("\n"), "\x1b" in result.errors) == ("error: ", 1, False)
        refused += [command] if refusal in result.errors else []
        assert contents(outside) == before, command
    assert refused, refusal
    assert ASKED not in refusal or refused == asked_by(refusal)
    assert not any(path.name != "inner" for path in outside.parent.glob("cache/*"))
    assert time.monotonic() - start < 60


def asked_by(refusal: str) -> list[str]:
    """The commands that act on what is refused; all where that is not a permission."""
    if "jobs.jsonl" in refusal:
        return ["status", "report"]  # no other one reads it; `resume` would train
    group = refusal.partition(".")[0].replace("engine_args", "inference")
    return [command for command in COMMANDS if ASKED not in refusal or group in READS.get(command, ())]


# Folders of trained routers, which are not refused whole


@pytest.fixture
def trained(smoke_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, without checksums, which its author would have made anew."""
    folder = tmp_path / "trained"
    return Path(shutil.copytree(smoke_run, folder, ignore=shutil.ignore_patterns("checksums.txt")))


def test_commands_go_on_beside_permissions_that_they_do_not_act_on(
    main: Callable[..., Result], trained: Path, outside: Path
) -> None:
    evil = {"engine_args": {"model": "evil/model"}, "sampling_args": {"custom_generate": "evil"}}
    set_keys(
        trainer__extra={"default_root_dir": "{outside}/root"},
        tracking__wandb__entity="evil",
        **{f"inference__{key}": value for key, value in evil.items()},
    )(trained, outside)
    own_module("decoding", method="own")(trained, outside)
    shutil.rmtree(trained / "merged", ignore_errors=True)
    before = contents(outside)
    assert main(*runs("merge", trained)).status == 0
    assert main(*runs("push", trained), "dry_run=true").status == 0
    # A chosen group takes the place of all that the folder says there.
    assert main(*runs("route", trained), "decoding=free").errors.count(ASKED) == 2
    assert ASKED not in main(*runs("route", trained), "inference=transformers", "decoding=free").errors
    assert contents(outside) == before


@pytest.mark.parametrize("command", ["evaluate", "merge"])
def test_a_pickled_adapter_is_not_read(command: str, main: Callable[..., Result], trained: Path, outside: Path) -> None:
    (trained / "adapter" / "adapter_model.safetensors").unlink()
    (trained / "adapter" / "adapter_model.bin").write_bytes(pickle.dumps(Touches(outside / "canary")))
    shutil.rmtree(trained / "merged", ignore_errors=True)
    result = main(*runs(command, trained))
    assert (result.status, result.errors.count("\n")) == (1, 1)
    assert "adapter must be an adapter of the base model, got one that cannot be read" in result.errors
    assert not (outside / "canary").exists()


def test_a_pickled_checkpoint_is_not_read(main: Callable[..., Result], trained: Path, outside: Path) -> None:
    """Of all weights that were trained: without adapter_config.json the folder is a whole checkpoint."""
    (trained / "adapter" / "adapter_config.json").unlink()
    (trained / "adapter" / "adapter_model.safetensors").unlink()
    (trained / "adapter" / "pytorch_model.bin").write_bytes(pickle.dumps(Touches(outside / "canary")))
    (trained / "adapter" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert main(*runs("evaluate", trained)).status == 1
    assert not (outside / "canary").exists()


def test_a_trainer_state_runs_nothing(trained: Path, outside: Path) -> None:
    from causal_lm_router.training.checkpoint import STATE_FILE, FolderCheckpointIO

    (trained / "step").mkdir()
    (trained / "step" / STATE_FILE).write_bytes(pickle.dumps(Touches(outside / "canary")))
    with pytest.raises(Exception, match=r"[Ww]eights"):
        FolderCheckpointIO().load_checkpoint(trained / "step")
    assert not (outside / "canary").exists()


def test_an_adapter_names_no_modules(main: Callable[..., Result], trained: Path) -> None:
    path = trained / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "megatron_config": {}, "megatron_core": "evil"}))
    shutil.rmtree(trained / "merged", ignore_errors=True)
    assert "cannot be read: megatron_config must be null, got {}" in main(*runs("merge", trained)).errors


# The same folders with the permission given: what these tests watch for does happen


@pytest.mark.parametrize(
    ("make", "given"),
    [(remote_code, "base_model.trust_remote_code=true"), (pickled_table, "data.allow_pickle=true")],
    ids=["code with the weights", "a pickled table"],
)
def test_a_permission_that_is_given_again_holds(
    make: Hostile, given: str, main: Callable[..., Result], trained: Path, outside: Path
) -> None:
    make(trained, outside)
    assert ASKED in main(*runs("evaluate", trained)).errors
    assert not (outside / "canary").exists()
    with contextlib.suppress(Exception):  # what the evil code makes of it afterwards
        print(main(*runs("evaluate", trained), given))
    assert (outside / "canary").exists()
