"""What the commands share: starting from a run, refusing bad configs and data in one line, leaving nothing behind."""

import contextlib
import json
import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from causal_lm_router.config.compose import compose_config, conf_dir
from causal_lm_router.config.honoured import HONOURED
from causal_lm_router.config.overrides import quote_text
from causal_lm_router.config.plain import dump_config
from causal_lm_router.config.run_config import register_run
from causal_lm_router.evaluation.metrics import evaluate_outcomes
from causal_lm_router.evaluation.report import RoutingReport
from causal_lm_router.routing import Candidate, Generation, ParsedRoute, RouteOutcome, RoutingExample
from causal_lm_router.runs.run_folder import RouterMetadata, RunFolder
from tests.conftest import Result


@pytest.fixture
def refuses(main: Callable[..., Result], tmp_path: Path) -> Callable[..., str]:
    """Function that runs a command line which must fail in one line and leave no trace, and returns that line."""

    def check(*arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        result = main(*arguments)
        assert (result.status, result.output) == (1, "")
        assert result.errors.startswith("error: ")
        assert result.errors.count("\n") == 1, result.errors
        assert sorted(tmp_path.rglob("*")) == before
        return result.errors.removeprefix("error: ").rstrip("\n")

    return check


# Commands on a run


@pytest.fixture(scope="module")
def run_config() -> str:
    """The config.yaml of a run."""
    return dump_config(compose_config(["data=jsonl", "debug=smoke", r"data.path='\${x}, #1'", "run_dir=elsewhere"]))


@pytest.fixture
def run_dir(tmp_path: Path, run_config: str) -> Path:
    """The folder of a run whose weights nothing reads."""
    folder = tmp_path / "a, run (1)"
    folder.mkdir()
    (folder / "config.yaml").write_text(run_config, encoding="utf-8")
    RunFolder(folder).write_metadata(RouterMetadata((Candidate("a"), Candidate("b")), "a"))
    RunFolder(folder).weights.mkdir()
    return folder


def stub(monkeypatch: pytest.MonkeyPatch, module: str, **functions: Any) -> None:
    """Put functions in place of one of our modules, so that nothing heavy is imported and no work is done."""
    monkeypatch.setitem(sys.modules, f"causal_lm_router.{module}", SimpleNamespace(**functions))


ON_RUN = {"evaluate": [], "route": ["query=x"], "resume": [], "merge": [], "push": ["repo=a/b"]}

NOT_HONOURED = {
    "evaluate": "+target=token target.kind=token lora.lora_r=4 optim.learning_rate=3 objective.kind=soft "
    "+base_model=tiny tracking=local tracking.tensorboard=true data.task_shrinkage=1 seed=1 ~lora "
    "evaluation=final_only evaluation.every_n_epochs=1 trainer.num_epochs=2 sweep.name=x",
    "route": "target=token objective=soft +tracking=local data.path=x decoding.also=[trie]",
    "resume": "lora.lora_r=4 data.path=x sweep.name=x inference=vllm",
    "merge": "lora.lora_r=4 inference.temperature=1 +base_model=tiny",
    "push": "name=x base_model.name=x",
}


@pytest.mark.parametrize(
    ("command", "override"), [(name, word) for name, words in NOT_HONOURED.items() for word in words.split()]
)
def test_what_a_command_on_a_run_does_not_honour_is_refused(
    command: str, override: str, refuses: Callable[..., str], run_dir: Path
) -> None:
    line = refuses(command, f"run_dir={run_dir}", *ON_RUN[command], override)
    key = override.lstrip("+~").split("=")[0]
    assert line.startswith(f"{key} must stay as the run has it, got {override!r}: {command} takes run_dir, ")


@pytest.mark.parametrize("command", HONOURED)
def test_what_a_command_on_a_run_honours_is_there(command: str, run_dir: Path) -> None:
    chosen = [f"{group}={choice}" for group, choice in CHOICES.items() if group in HONOURED[command]]
    register_run(command, [f"run_dir='{run_dir}'", *chosen], required=True, takes_baselines=command == "resume")
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=conf_dir()):
        # What is not in the config could only be given with a +, which no message advises.
        composed = compose(config_name=command, overrides=[f"run_dir='{run_dir}'", *chosen])
    # The run's own W&B settings are no wish for a W&B run of every evaluation.
    assert command != "evaluate" or composed.tracking.wandb.mode == "disabled"
    for key in HONOURED[command]:
        node: Any = composed
        for part in key.split("."):
            assert part in list(node), key
            node = node._get_node(part)


CHOICES = {
    "data": "simulated",
    "prompt": "seed",
    "inference": "vllm",
    "decoding": "scored",
    "parsing": "fuzzy",
    "tracking": "local",
}


@pytest.mark.slow
def test_settings_that_are_honoured_pass(
    main: Callable[..., Result], run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["prompt=candidates", "decoding=scored", "decoding.normalisation=prior", "evaluation.max_queries=60"]

    def evaluate_run(config: Any) -> None:
        print(config.evaluation.max_queries, config.decoding.normalisation, "{candidates}" in config.prompt.template)

    stub(monkeypatch, "runs.evaluate_run", evaluate_run=evaluate_run)
    monkeypatch.setattr("causal_lm_router.evaluation.report_table.print_report", lambda *arguments: None)
    assert main("evaluate", f"run_dir={run_dir}", *given).output.startswith("60 prior True\n")
    # What is drawn during training says nothing about how much is evaluated later.
    assert main("evaluate", f"run_dir={run_dir}").output.startswith("None sum False\n")


@pytest.mark.slow
def test_several_evaluations_end_with_one_table(
    main: Callable[..., Result], run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = RoutingExample("0", "text", "task", {"a": 1.0, "b": 0.0})
    generation, route = Generation("a", "stop"), ParsedRoute("a")
    outcome = RouteOutcome(example=example, label="a", generation=generation, route=route, called="a")

    def evaluate_run(config: Any) -> RoutingReport:
        if config.decoding.method.value == "trie":
            raise ValueError("planted")
        return evaluate_outcomes([outcome] * 4, ["a", "b"], "b", None).report

    stub(monkeypatch, "runs.evaluate_run", evaluate_run=evaluate_run)
    result = main("evaluate", "-m", f"run_dir='{run_dir}'", "decoding=free,scored", "inference=transformers")
    assert result.status == 0, result.errors
    assert result.output.count("mean score 1.000, routing accuracy 100.0%") == 2, "a line as each one ends"
    rows = [line.split()[:3] for line in result.output.splitlines() if "decoding=" in line]
    assert rows == [["decoding=free", "1.000", "100.0%"], ["decoding=scored", "1.000", "100.0%"]]
    assert "best single" in result.output
    failed = main("evaluate", "-m", f"run_dir='{run_dir}'", "decoding=free,trie")
    assert (failed.status, "decoding=free" in failed.output) == (1, True), "what was done has its row"
    assert "planted" in failed.errors


FOREIGN = {
    "another program's": ("epochs: 3\n", "Key 'epochs' not in 'TrainConfig'"),
    "a part of ours": ("name: x\nrun_dir: y\n", "missing mandatory value: seed"),
    "a list": ("- 1\n", "it holds no keys"),
    "empty": ("", "it holds no keys"),
    "not YAML": ("a: [", "cannot be read: while parsing a flow node"),
}


@pytest.mark.parametrize("command", ON_RUN)
def test_run_dir_is_needed(command: str, refuses: Callable[..., str]) -> None:
    assert refuses(command, *ON_RUN[command]).startswith("run_dir must be the folder of a run, got none")


@pytest.mark.parametrize("command", ON_RUN)
def test_run_dir_without_a_run(command: str, refuses: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("nowhere", "empty"):
        line = refuses(command, f"run_dir={folder}", *ON_RUN[command])
        assert line == f"run_dir must be a run folder, got {folder}: no config.yaml there"


@pytest.mark.parametrize("command", ON_RUN)
@pytest.mark.parametrize(("text", "reason"), FOREIGN.values(), ids=FOREIGN)
@pytest.mark.slow
def test_run_dir_of_something_else(
    command: str, text: str, reason: str, refuses: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.yaml").write_text(text)
    line = refuses(command, "run_dir=foreign", *ON_RUN[command])
    assert line.startswith(("foreign/config.yaml: this is not the config of a run: ", "foreign/config.yaml: cannot be"))
    assert reason in line


@pytest.mark.slow
def test_failed_evaluation_leaves_no_folder(
    refuses: Callable[..., str], run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def evaluate_run(config: Any) -> None:
        seen.append((config.run_dir, Path(config.output_dir).is_dir(), config.inference.backend))
        raise FileNotFoundError("nothing trained")

    stub(monkeypatch, "runs.evaluate_run", evaluate_run=evaluate_run)
    assert refuses("evaluate", f"run_dir='{run_dir}'", "inference=vllm") == "nothing trained"
    assert seen == [(str(run_dir), True, "vllm")], "the job ran, with Hydra's folder, and the run's own config changed"
    assert "not in 'EvaluateConfig'" in refuses("evaluate", f"run_dir='{run_dir}'", "+typo=1")


@pytest.mark.slow
def test_failed_training_leaves_no_folder(
    refuses: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complete_run(config: Any) -> None:
        assert Path(config.run_dir).is_dir()
        raise ValueError("bad data:\n\n  see there")

    stub(monkeypatch, "runs.complete_run", complete_run=complete_run)
    assert refuses("train", "data=simulated", "debug=smoke") == "bad data:; see there"
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "kept").touch()
    assert refuses("train", "data=simulated", "debug=smoke") == "bad data:; see there"


@pytest.mark.slow
def test_what_a_failed_job_has_written_stays(
    main: Callable[..., Result], run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate_run(config: Any) -> None:
        (Path(config.output_dir) / "outcomes.jsonl").write_text("{}")
        raise ValueError("late")

    stub(monkeypatch, "runs.evaluate_run", evaluate_run=evaluate_run)
    assert main("evaluate", f"run_dir='{run_dir}'").errors == "error: late\n"
    assert len(list(run_dir.glob("evaluations/*/outcomes.jsonl"))) == 1


def started(config: Any) -> None:
    (Path(config.run_dir) / "config.yaml").write_text("name: x")


@pytest.mark.slow
def test_ctrl_c_prints_the_command_that_goes_on(
    main: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def complete_run(config: Any) -> None:
        started(config)
        raise KeyboardInterrupt

    stub(monkeypatch, "runs.complete_run", complete_run=complete_run)
    result = main("train", "data=simulated", "debug=smoke", "run_dir=runs/first")
    assert result == (130, "", "interrupted; to go on: causal-lm-router resume run_dir=runs/first\n")
    result = main("train", "data=simulated", "debug=smoke", "run_dir=a, b's")
    command = result.errors.removeprefix("interrupted; to go on: causal-lm-router ")
    (tmp_path / "a, b's" / "config.yaml").write_text(dump_config(compose_config(["data=simulated", "run_dir=x"])))
    stub(monkeypatch, "runs.complete_run", complete_run=lambda config: print(config.run_dir))
    assert main(*shlex.split(command)).output == "a, b's\n"
    assert "interrupted" in (tmp_path / "runs" / "first" / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("error", [ValueError("late"), RuntimeError("odd")])
def test_the_log_holds_the_error_that_ended_the_run(
    error: Exception, main: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def complete_run(config: Any) -> None:
        started(config)
        logging.getLogger("causal_lm_router.runs.train_run").info("under way")
        raise error

    stub(monkeypatch, "runs.complete_run", complete_run=complete_run)
    with contextlib.suppress(RuntimeError):
        assert main("train", "data=simulated", "debug=smoke", "run_dir=run").output == "under way\n"
    log = (tmp_path / "run" / "train.log").read_text()
    assert "[causal_lm_router.runs.train_run][INFO] - under way" in log
    assert re.search(rf"\[ERROR\] - ended by an error: .*{error}\nTraceback ", log)


@pytest.mark.parametrize(("command", "body"), [("resume", "complete_run"), ("merge", "merge_run")])
@pytest.mark.slow
def test_a_moved_run_is_found_where_it_is(
    command: str, body: str, main: Callable[..., Result], run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "runs.complete_run" if command == "resume" else "runs.merge_run"
    stub(monkeypatch, module, **{body: lambda config: print(config.data.path, config.run_dir)})
    assert main(command, f"run_dir='{run_dir}'") == (0, f"${{x}}, #1 {run_dir}\n", "")


@pytest.mark.slow
def test_a_quote_in_the_name_of_a_run(
    main: Callable[..., Result], run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, "runs.merge_run", merge_run=lambda config: print(config.run_dir))
    folder = run_dir.rename(run_dir.with_name('it\'s, "here"'))
    assert main("merge", quote_text(f"run_dir={folder}")) == (0, f"{folder}\n", "")


QUERIES = ["Hello, world", "It's f(x) = {a: 1}!", "x ${name} \\${y} \\", ' "Yes" or "no" ', "17.50", "null", "é\n#"]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.slow
def test_a_query_is_taken_as_it_is_typed(
    query: str, main: Callable[..., Result], run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FakeRouter:
        """Routes every query to itself."""

        def __enter__(self) -> "FakeRouter":
            return self

        def __exit__(self, *exception: object) -> None: ...

        def route_batch(self, rows: list[dict[str, str]]) -> list[dict[str, Any]]:
            return [{"model_name": json.dumps(row["query"])} for row in rows]

    stub(monkeypatch, "runs.router", CausalLMRouter=SimpleNamespace(from_run=lambda run_dir, config: FakeRouter()))
    assert main("route", f"run_dir='{run_dir}'", f"query={query}") == (0, json.dumps(query) + "\n", "")


@pytest.mark.parametrize(
    ("arguments", "beginning"),
    [
        ([], "query must be given where no one can type it"),
        (["query=x", "input=y"], "query, input must be given one at a time"),
    ],
)
@pytest.mark.slow
def test_route_needs_one_source_of_queries(
    arguments: list[str], beginning: str, refuses: Callable[..., str], run_dir: Path
) -> None:
    assert refuses("route", f"run_dir='{run_dir}'", *arguments).startswith(beginning)


# Bad configs and bad data


@pytest.mark.parametrize(
    ("command", "override", "part"),
    [
        ("train data=simulated", "+typo=1", "key: typo"),
        ("train data=simulated", "lora.lora_r=0", "lora.lora_r must be an integer of at least 1, got 0"),
        ("data", "lora.lora_rank=1", "key: lora.lora_rank"),
        ("data", "lora=lorra", "lora must be one of all_linear, default, none, got 'lorra'"),
        ("data", "lora=null", "lora must be a choice of the group, got 'null'"),
        ("data", "lora", "'lora'"),
        ("train data=simulated", "--batch_size=4", "--batch_size must be written as a setting, trainer.batch_size=4"),
        (
            "train data=simulated",
            "--warmup-ratio=1",
            "--warmup-ratio must be written as a setting, optim.warmup_ratio=1",
        ),
        ("train data=simulated --batch_size", "4", "--batch_size must be written as a setting, trainer.batch_size=4"),
        ("train data=simulated", "+experiment=x", "experiment must be chosen without +, as experiment=x"),
        ("train data=simulated", "--cfg", "--cfg/-c cannot be read"),
        ("train", "A:", "a value with spaces goes in quotes"),
        ("baseline data=simulated", "seed=0", "baseline must be one of best_single, "),
        ("baseline data=simulated", "baseline=knn", "baseline=knn_regression_300 or baseline=knn_vote?"),
    ],
)
@pytest.mark.slow
def test_bad_config(command: str, override: str, part: str, refuses: Callable[..., str]) -> None:
    assert part in refuses(*command.split(), override)


def test_traceback_on_demand(main: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match=r"lora\.lora_r must be .*, got 0"):
        main("data", "data=simulated", "lora.lora_r=0")


@pytest.mark.slow
def test_further_processes_start_as_the_commands_module(main: Callable[..., Result]) -> None:
    main("data", "--help")
    spec = sys.modules["__main__"].__spec__
    assert spec is not None
    assert spec.name == "causal_lm_router.commands.data"


HEAVY = {"torch", "transformers", "pytorch_lightning", "vllm", "peft"}
EARLY = {
    "train data=jsonl": "data.path must be ",
    "train data=jsonl data.path=nowhere": "data.path must be ",
    "train data=routerdc": "data.path must be ",
    "baseline data=routellm baseline=svm": "data.path must be ",
    "train data=simulated debug=smoke trainer.accelerator=gpu": "trainer.accelerator must be cpu or auto",
    "train data=simulated debug=smoke tracking.wandb.mode=online": "tracking.wandb.mode must be auto, ",
    "train data=simulated": "base_model.name must be a base model that can be loaded, got 'meta-llama/Lla",
    "train data=simulated base_model.name=./none": "base_model.name must be a base model that can be ",
    "train data=simulated run_dir=finished": "run_dir must be a folder without a finished run, got ",
    "baseline data=simulated baseline=svm run_dir=finished": "run_dir must be a folder without a finished run, got ",
    "evaluate run_dir=finished": "run_dir must hold a trained router, got finished",
    "merge run_dir=finished": "run_dir must hold a trained router, got finished",
    "route run_dir=finished query=x": "run_dir must hold a trained router, got finished",
    "push run_dir=finished repo=a/b": "run_dir must hold a trained router, got finished",
    "resume run_dir=finished": "run_dir must be a folder without a finished run, got finished",
}
PROGRAMME = """
import sys
from causal_lm_router.commands import cli
try:
    cli.main()
finally:
    print(sorted({heavy} & set(sys.modules)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("typed", EARLY)
def test_what_is_missing_is_told_before_the_heavy_imports(typed: str, tmp_path: Path) -> None:
    if "accelerator" in typed and any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("there is a GPU")
    (tmp_path / "finished").mkdir()
    config = dump_config(compose_config(["data=simulated", "run_dir=x"]))
    (tmp_path / "finished" / "config.yaml").write_text(config)
    (tmp_path / "finished" / "report.json").touch()
    programme = PROGRAMME.replace("{heavy}", repr(HEAVY))
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "WANDB_API_KEY": "",
        "HOME": str(tmp_path),
        "NETRC": str(tmp_path / "netrc"),
    }
    done = subprocess.run(
        [sys.executable, "-c", programme, *typed.split()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "[]\n"), done.stderr
    assert done.stderr.startswith(f"error: {EARLY[typed]}")
    assert done.stderr.count("\n") == 1


GOOD = '{"query": "good", "scores": {"a": 1, "b": 0}}\n'
SCORES = '"scores": {"a": 1, "b": 0}'

BAD_DATA = {
    "broken JSON": (GOOD + '{"query": "x", "scores" {}}\n', "data.jsonl:2: broken JSON: Expecting ':' delimiter"),
    "NaN score": (GOOD + '{"query": "x", "scores": {"a": NaN, "b": 0}}\n', "data.jsonl:2: NaN is not a JSON number"),
    "unknown candidate": (GOOD + '{"query": "x", "scores": {"a": 1, "c": 0}}\n', "data.jsonl:2: unknown candidate 'c'"),
    "empty query": (GOOD + f'{{"query": " ", {SCORES}}}\n', "data.jsonl:2: query is empty"),
    "1 MB query": (
        GOOD + f'{{"query": "{"x" * 1_000_000}", {SCORES}}}\n',
        "data.jsonl:2: query has 1,000,000 characters, data.max_query_chars allows 100,000",
    ),
    "key twice": (GOOD + f'{{"query": "x", "query": "y", {SCORES}}}\n', "data.jsonl:2: key 'query' appears twice"),
    "wrong type": (GOOD + '{"query": "x", "scores": "high"}\n', "data.jsonl:2: 'scores' must be"),
    "score out of range": (
        GOOD + '{"query": "x", "scores": {"a": 1, "b": 9}}\n',
        "data.jsonl:2: candidate 'b': score must be a number in 0..1, got 9",
    ),
    "one candidate": ('{"query": "x", "scores": {"a": 1}}\n', "at least 2 candidates"),
    "same names": (
        '{"query": "x", "scores": {"caf\\u00e9": 1, "cafe\\u0301": 0}}\n',
        "candidate names must differ, got 'café' and 'cafe\u0301'",
    ),
    "line break in a name": ('{"query": "x", "scores": {"a\\nb": 1, "b": 0}}\n', "line breaks"),
    "empty file": ("", "data.jsonl"),
}


@pytest.mark.parametrize(("text", "part"), BAD_DATA.values(), ids=BAD_DATA)
@pytest.mark.slow
def test_bad_data(text: str, part: str, refuses: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(text, encoding="utf-8")
    line = refuses("data", "data=jsonl", "data.path=data.jsonl")
    assert part in line
    assert "data.jsonl" in line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["data=jsonl", "data.path=nowhere.jsonl"],
            "data.path must be a file or glob, or a folder with *.jsonl, got 'nowhere.jsonl': no such file",
        ),
        (["data=jsonl"], "data.path must be"),
        (["data=routellm", "data.path=."], "data.path must be a file or glob, or a folder with "),
    ],
)
@pytest.mark.slow
def test_missing_data(arguments: list[str], line: str, refuses: Callable[..., str]) -> None:
    assert refuses("data", *arguments).startswith(line)
