"""LLMRouter's configuration file: its keys, names and defaults, its mistakes, and one file from training to routes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from causal_lm_router import CausalLMRouter, CausalLMRouterTrainer, CausalLMTrainer
from causal_lm_router.config.plain import config_dict
from causal_lm_router.runs.llmrouter_yaml import HPARAM_DEFAULTS, OVERRIDE_KEYS, read_llmrouter_yaml

# A small pool with names that contain one another, in LLMRouter's form. Prices are USD per million tokens.
POOL = {
    "small": {"size": "7B", "feature": "small and fast", "input_price": 0.1, "output_price": 0.2, "model": "x/small"},
    "small-2": {"size": "9B", "feature": "", "input_price": 0.3, "output_price": 0.3, "service": "NVIDIA"},
    "large model": {"size": "70B", "feature": "", "input_price": 0.9, "output_price": 0.9},
}
# The file as LLMRouter ships it for its causal-LM router, down to the paths.
SHIPPED = """
data_path:
  query_data_train: 'data/example_data/query_data/default_query_train.jsonl'
  query_data_test: 'data/example_data/query_data/default_query_test.jsonl'
  query_embedding_data: 'data/example_data/routing_data/query_embeddings_longformer.pt'
  routing_data_train: 'data/example_data/routing_data/default_routing_train_data.jsonl'
  routing_data_test: 'data/example_data/routing_data/default_routing_test_data.jsonl'
  llm_data: 'data/example_data/llm_candidates/default_llm.json'
  llm_embedding_data: 'data/example_data/llm_candidates/default_llm_embeddings.json'
model_path:
  ini_model_path: ''
  save_model_path: 'saved_models/causallm_router'
  load_model_path: 'saved_models/causallm_router/merged'
metric:
  weights: {performance: 1, cost: 0, llm_judge: 0}
hparam:
  base_model: "meta-llama/Llama-2-7b-hf"
  use_lora: true
  lora_r: 16
  lora_alpha: 32
  lora_dropout: 0.1
  lora_target_modules: ["q_proj", "k_proj", "v_proj", "o_proj"]
  merge_lora: true
  num_epochs: 3
  batch_size: 4
  gradient_accumulation_steps: 4
  learning_rate: 0.00002
  weight_decay: 0.01
  warmup_ratio: 0.1
  max_length: 512
  fp16: true
  logging_steps: 10
  save_steps: 100
  report_to: "none"
  tensor_parallel_size: 1
  gpu_memory_utilization: 0.9
  max_new_tokens: 32
  temperature: 0.1
  top_p: 0.95
"""
# What the defaults mean in a config of ours: every key of hparam but the three that only a GPU or a tracker feels.
RESOLVED = {
    "base_model.name": "meta-llama/Llama-2-7b-hf",
    "lora.use_lora": True,
    "lora.lora_r": 16,
    "lora.lora_alpha": 32,
    "lora.lora_dropout": 0.1,
    "lora.target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "lora.merge_lora": True,
    "trainer.num_epochs": 3,
    "trainer.batch_size": 4,
    "trainer.accumulate_grad_batches": 4,
    "optim.learning_rate": 0.00002,
    "optim.weight_decay": 0.01,
    "optim.warmup_ratio": 0.1,
    "prompt.max_length": 512,
    "trainer.log_every_n_steps": 10,
    "trainer.checkpoint_every_n_steps": 100,
    "inference.tensor_parallel_size": 1,
    "inference.max_new_tokens": 32,
    "inference.temperature": 0.1,
    "inference.top_p": 0.95,
}
# Another value for each of them: (in the YAML, in our config).
OTHERS = {
    "base_model": ("org/a base, with 'quotes' and ${braces}", "base_model.name"),
    "use_lora": (False, "lora.use_lora"),
    "lora_r": (8, "lora.lora_r"),
    "lora_alpha": (64, "lora.lora_alpha"),
    "lora_dropout": (0, "lora.lora_dropout"),
    "lora_target_modules": (["gate_proj", "up_proj"], "lora.target_modules"),
    "merge_lora": (False, "lora.merge_lora"),
    "num_epochs": (7, "trainer.num_epochs"),
    "batch_size": (2, "trainer.batch_size"),
    "gradient_accumulation_steps": (1, "trainer.accumulate_grad_batches"),
    "learning_rate": (0.5, "optim.learning_rate"),
    "weight_decay": (0.25, "optim.weight_decay"),
    "warmup_ratio": (0.75, "optim.warmup_ratio"),
    "max_length": (100, "prompt.max_length"),
    "logging_steps": (3, "trainer.log_every_n_steps"),
    "save_steps": (9, "trainer.checkpoint_every_n_steps"),
    "tensor_parallel_size": (2, "inference.tensor_parallel_size"),
    "max_new_tokens": (5, "inference.max_new_tokens"),
    "temperature": (0.0, "inference.temperature"),
    "top_p": (1.0, "inference.top_p"),
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of a YAML file also start at the working directory, and runs land there."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def routing_rows(query: str, task: str, best: str) -> Iterator[dict[str, Any]]:
    """LLMRouter's rows of one query: `best` is right, the other candidates are wrong."""
    for index, name in enumerate(POOL):
        yield {
            "task_name": task,
            "query": query,
            "ground_truth": "42",
            "metric": "em_mc",
            "model_name": name,
            "response": "The answer is 42.",
            "performance": 1.0 if name == best else 0.0,
            "embedding_id": 17,
            "token_num": 30 + index,
            "input_tokens": 20,
            "output_tokens": 10 + index,
            "response_time": 0.5,
        }


def labelled_queries(split: str, count: int) -> Iterator[tuple[str, str, str]]:
    """(query, task, best candidate): sums are for the large model, the rest for the small ones."""
    for number in range(count):
        seen = "" if split == "train" else "?"
        yield [
            (f"{number} - {number * 7} - 3{seen}", "sums", "large model"),
            (f"that small model {number * 11}{seen}", "words", "small"),
            (f"for , for , for {number * 13}{seen}", "marks", "small-2"),
        ][number % 3]


def write_jsonl(path: Path, rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with data files in LLMRouter's form: train, test, queries and pool."""
    folder = tmp_path / "experiment"
    (folder / "data").mkdir(parents=True)
    for split, count in (("train", 60), ("test", 12)):
        queries = list(labelled_queries(split, count))
        rows = [row for query in queries for row in routing_rows(*query)]
        write_jsonl(folder / "data" / f"routing_{split}.jsonl", rows)
        plain = (
            {"task_name": task, "query": query, "ground_truth": "42", "metric": "em_mc"} for query, task, _ in queries
        )
        write_jsonl(folder / "data" / f"query_{split}.jsonl", plain)
    (folder / "data" / "llm.json").write_text(json.dumps(POOL), encoding="utf-8")
    return folder


@pytest.fixture
def write(folder: Path) -> Callable[..., Path]:
    """Function that writes router.yaml, its data paths in place, and returns its path."""

    def write(text: str | None = None, data: dict[str, Any] | None = None, **sections: Any) -> Path:
        paths = {"routing_data_train": "data/routing_train.jsonl"} if data is None else data
        path = folder / "router.yaml"
        path.write_text(
            text if text is not None else yaml.safe_dump({"data_path": paths, **sections}), encoding="utf-8"
        )
        return path

    return write


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys and values of a config."""
    found: dict[str, Any] = {}
    for key, value in (config_dict(config) if not isinstance(config, dict) else config).items():
        nested = isinstance(value, dict) and value
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


# Names and defaults


def test_hparam_has_llmrouters_names_and_defaults() -> None:
    assert yaml.safe_load(SHIPPED)["hparam"] == HPARAM_DEFAULTS


def test_a_base_model_of_ours_is_known_by_its_choice(write: Callable[..., Path]) -> None:
    config = read_llmrouter_yaml(write(hparam={"base_model": "smollm2_135m"}))[0].base_model
    assert (config.origin.value, config.name) == ("packaged", "smollm2-135m-instruct")
    for name in ("../lora/default", "HuggingFaceTB/SmolLM2-135M-Instruct"):
        config = read_llmrouter_yaml(write(hparam={"base_model": name}))[0].base_model
        assert (config.origin.value, config.name) == ("hub", name)


def test_defaults_become_our_config(write: Callable[..., Path]) -> None:
    config, files = read_llmrouter_yaml(write())
    found = flat(config)
    assert {key: found[key] for key in RESOLVED} == RESOLVED
    assert found["prompt.template"].startswith("Choose the LLM") and "{candidates}" in found["prompt.template"]
    assert (found["inference.backend"], found["inference.engine_args"]) == ("vllm", {})
    assert (found["evaluation.every_n_epochs"], found["evaluation.every_n_steps"]) == (None, None)
    assert (found["trainer.accelerator"], found["trainer.precision"]) == ("cpu", "32-true")
    assert found["base_model.dtype"] == "float32"
    assert (found["tracking.wandb.mode"], found["tracking.tensorboard"]) == ("disabled", False)
    assert found["parsing.fallback_candidate"] is None, "a parse failure is never sent to the first LLM"
    assert found["run_dir"] == "saved_models/causallm_router"
    assert files.load_run_dir == Path("saved_models/causallm_router")


def test_the_file_as_shipped_is_read_from_the_project_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config_dir = folder / "configs" / "model_config_train"
    config_dir.mkdir(parents=True)
    (config_dir / "causallm_router.yaml").write_text(SHIPPED, encoding="utf-8")
    for key, value in yaml.safe_load(SHIPPED)["data_path"].items():
        if "embedding" not in key:  # those are not needed, and not looked for
            (folder / value).parent.mkdir(parents=True, exist_ok=True)
            (folder / value).touch()
    monkeypatch.chdir(folder)
    router = CausalLMRouter(yaml_path=str(config_dir / "causallm_router.yaml"))
    found, data = flat(router.config), folder / "data" / "example_data"
    assert {key: found[key] for key in RESOLVED} == RESOLVED
    assert found["data.path"] == str(data / "routing_data" / "default_routing_train_data.jsonl")
    assert found["data.test_path"] == str(data / "routing_data" / "default_routing_test_data.jsonl")
    assert found["data.query_path"] == str(data / "query_data" / "default_query_train.jsonl")
    assert found["data.pool_path"] == str(data / "llm_candidates" / "default_llm.json")
    assert found["data.use_source_split"] is True
    assert found["run_dir"] == "saved_models/causallm_router"
    with pytest.raises(FileNotFoundError, match="saved_models/causallm_router"):
        router.route_single({"query": "not trained yet"})


def test_every_hparam_reaches_its_key(write: Callable[..., Path]) -> None:
    assert (
        OTHERS.keys()
        == OVERRIDE_KEYS.keys()
        == HPARAM_DEFAULTS.keys()
        - {
            "fp16",
            "report_to",
            "gpu_memory_utilization",
        }
    )
    config, _ = read_llmrouter_yaml(write(hparam={theirs: value for theirs, (value, _) in OTHERS.items()}))
    found = flat(config)
    assert {ours: found[ours] for _, ours in OTHERS.values()} == {ours: value for value, ours in OTHERS.values()}


@pytest.mark.parametrize(
    ("report_to", "wandb", "tensorboard"),
    [("none", "disabled", False), ("wandb", "auto", False), ("tensorboard", "disabled", True)],
)
@pytest.mark.slow
def test_report_to(report_to: str, wandb: str, tensorboard: bool, write: Callable[..., Path]) -> None:
    config, _ = read_llmrouter_yaml(write(hparam={"report_to": report_to}))
    assert (config.tracking.wandb.mode.value, config.tracking.tensorboard) == (wandb, tensorboard)


@pytest.mark.parametrize(("fp16", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
@pytest.mark.slow
def test_on_a_gpu(fp16: bool, precision: str, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config, _ = read_llmrouter_yaml(write(hparam={"fp16": fp16, "gpu_memory_utilization": 0.4}))
    assert (config.trainer.precision, config.trainer.accelerator) == (precision, "auto")
    assert config.base_model.dtype == "bfloat16"
    assert config.inference.engine_args == {"gpu_memory_utilization": 0.4}


@pytest.mark.parametrize(
    ("load_model_path", "expected"),
    [
        (None, "runs/mine"),
        ("", "runs/mine"),
        ("runs/mine", "runs/mine"),
        ("runs/mine/merged", "runs/mine"),
        ("runs/other/merged", "runs/other"),
    ],
)
@pytest.mark.slow
def test_load_model_path_is_a_run_folder_or_its_merged_folder(
    load_model_path: str | None, expected: str, write: Callable[..., Path]
) -> None:
    paths = {"save_model_path": "runs/mine", "load_model_path": load_model_path}
    config, files = read_llmrouter_yaml(write(model_path=paths))
    assert (config.run_dir, files.load_run_dir) == ("runs/mine", Path(expected))


@pytest.mark.slow
def test_ties_go_to_the_cheapest_where_prices_are_known(write: Callable[..., Path]) -> None:
    train = {"routing_data_train": "data/routing_train.jsonl"}
    assert read_llmrouter_yaml(write(data=train))[0].data.tie_break.value == "best_on_train"
    assert read_llmrouter_yaml(write(data={**train, "llm_data": "data/llm.json"}))[0].data.tie_break.value == "cheapest"


# Paths


@pytest.mark.slow
def test_data_paths_start_at_the_yaml_file_then_at_the_working_directory(
    folder: Path, write: Callable[..., Path]
) -> None:
    (Path.cwd() / "data").mkdir()
    for name in ("routing_train.jsonl", "only_here.jsonl"):
        (Path.cwd() / "data" / name).touch()
    data = {"routing_data_train": "data/routing_train.jsonl", "routing_data_test": "data/only_here.jsonl"}
    config, _ = read_llmrouter_yaml(write(data=data))
    assert config.data.path == str(folder / "data" / "routing_train.jsonl")
    assert config.data.test_path == str(Path.cwd() / "data" / "only_here.jsonl")
    absolute = {"routing_data_train": str(Path.cwd() / "data" / "only_here.jsonl")}
    assert read_llmrouter_yaml(write(data=absolute))[0].data.path == absolute["routing_data_train"]


def test_a_path_with_odd_characters(folder: Path, write: Callable[..., Path]) -> None:
    odd = "it's ${here}, [1] = größe.jsonl"
    (folder / odd).touch()
    assert read_llmrouter_yaml(write(data={"routing_data_train": odd}))[0].data.path == str(folder / odd)


def test_missing_file_names_the_key_and_the_places_tried(folder: Path, write: Callable[..., Path]) -> None:
    path = write(data={"routing_data_train": "data/routing_train.jsonl", "llm_data": "data/nothing.json"})
    with pytest.raises(FileNotFoundError) as caught:
        CausalLMRouter(yaml_path=path)
    places = f"{folder / 'data' / 'nothing.json'}, {Path.cwd() / 'data' / 'nothing.json'}"
    assert str(caught.value) == f"{path}: data_path.llm_data must be a file at one of {places}, got 'data/nothing.json'"


def test_missing_yaml_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"yaml_path must be a file, got .*absent\.yaml"):
        CausalLMRouter(yaml_path=tmp_path / "absent.yaml")


# Mistakes


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"hparams": {}}, "the key hparams is unknown; it must be one of data_path | model_path | metric | hparam | "),
        ({"hparam": {"lora_rank": 8}}, "the key hparam.lora_rank is unknown; it must be one of base_model | use_lora"),
        ({"model_path": {"save_path": "x"}}, "the key model_path.save_path is unknown; it must be one of ini_model"),
        ({"data": {"routing_data": "x"}}, "the key data_path.routing_data is unknown; it must be one of query_data"),
        ({"metric": {"weight": {}}}, "the key metric.weight is unknown; it must be one of weights"),
        ({"metric": {"weights": {"speed": 0}}}, "the key metric.weights.speed is unknown; it must be one of perform"),
        (
            {"metric": {"weights": {"cost": 0.5}}},
            "metric.weights.cost must be 0, since only performance counts, got 0.5",
        ),
        ({"metric": {"weights": 1}}, "metric.weights must hold keys and values, got 1"),
        ({"hparam": ["lora_r"]}, "hparam must hold keys and values, got ['lora_r']"),
        ({"data": {}}, "data_path.routing_data_train must be a path, got None"),
        ({"data": {"routing_data_train": ["a", "b"]}}, "data_path.routing_data_train must be a path, got ['a', 'b']"),
        ({"model_path": {"save_model_path": 5}}, "model_path.save_model_path must be a path, got 5"),
        ({"hparam": {"lora_r": "sixteen"}}, "hparam.lora_r must be an integer, got 'sixteen'"),
        ({"hparam": {"lora_r": 16.5}}, "hparam.lora_r must be an integer, got 16.5"),
        ({"hparam": {"num_epochs": True}}, "hparam.num_epochs must be an integer, got True"),
        ({"hparam": {"num_epochs": None}}, "hparam.num_epochs must be an integer, got None"),
        ({"hparam": {"use_lora": "yes"}}, "hparam.use_lora must be true or false, got 'yes'"),
        ({"hparam": {"learning_rate": "2e-5"}}, "hparam.learning_rate must be a number such as 0.00002, got '2e-5'"),
        ({"hparam": {"lora_target_modules": "q_proj"}}, "hparam.lora_target_modules must be a list of names, got 'q_"),
        ({"hparam": {"base_model": 7}}, "hparam.base_model must be a text, got 7"),
        ({"hparam": {"report_to": "all"}}, "hparam.report_to must be one of none | wandb | tensorboard, got 'all'"),
        ({"hparam": {"batch_size": 0}}, "hparam.batch_size must be an integer of at least 1, got 0"),
        ({"hparam": {"gradient_accumulation_steps": -1}}, "hparam.gradient_accumulation_steps must be an int"),
        ({"hparam": {"learning_rate": float("nan")}}, "hparam.learning_rate must be a number above 0, got nan"),
        ({"hparam": {"lora_dropout": 1.5}}, "hparam.lora_dropout must be "),
        ({"hparam": {"base_model": " "}}, "hparam.base_model must be a hub name or a folder, got ' '"),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else "",
)
@pytest.mark.slow
def test_mistakes_name_the_file_and_the_key(sections: dict[str, Any], message: str, write: Callable[..., Path]) -> None:
    path = write(**sections)
    with pytest.raises(ValueError) as caught:
        CausalLMRouter(yaml_path=path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert list(Path.cwd().iterdir()) == [], "nothing is written"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hparam: {lora_r: 8\n", " must be YAML, got: "),
        (
            "hparam:\n  lora_r: 8\n  lora_r: 16\n",
            " must be YAML, got: a key must stand once in its place, got twice ['lora_r'] ",
        ),
        ("", ": the file must hold keys and values, got None"),
        ("just a text", ": the file must hold keys and values, got 'just a text'"),
        ("- data_path\n", ": the file must hold keys and values, got ['data_path']"),
        ("a: !!python/object/apply:os.system ['true']", " must be YAML, got: "),
    ],
)
def test_what_is_no_file_of_keys_and_values(text: str, message: str, write: Callable[..., Path]) -> None:
    path = write(text)
    with pytest.raises(ValueError) as caught:
        read_llmrouter_yaml(path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("on_gpu", "device", "told"),
    [(False, "cuda", "must be cpu on this machine, got 'cuda'"), (True, "tpu", "must be cpu or cuda on this machine")],
)
def test_a_device_that_is_not_there(
    on_gpu: bool, device: str, told: str, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    router = CausalLMRouter(yaml_path=write())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    with pytest.raises(ValueError, match=f"device {told}"):
        CausalLMTrainer(router=router, device=device)


def test_a_device_is_trained_on(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    trained: list[Any] = []
    monkeypatch.setattr("causal_lm_router.runs.train_run.train_router", trained.append)
    router = CausalLMRouter(yaml_path=write())
    for device in (None, "cuda", "cpu"):
        CausalLMTrainer(router=router, device=device).train()
    found = [(config.trainer.accelerator, config.trainer.precision, config.base_model.dtype) for config in trained]
    assert found == [("auto", "bf16-mixed", "bfloat16")] * 2 + [("cpu", "32-true", "float32")]
    assert CausalLMTrainer is CausalLMRouterTrainer


# From the YAML file to routes


@pytest.mark.slow
def test_train_and_route_as_in_llmrouters_documentation(
    folder: Path, write: Callable[..., Path], tiny_base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("query_data_train", "query_data_test", "routing_data_train", "routing_data_test")
    files = {name: f"data/{name.replace('_data_', '_')}.jsonl" for name in names}
    hparam = {"base_model": tiny_base.path, "use_lora": False, "num_epochs": 12, "batch_size": 6, "max_length": 160}
    hparam |= {"gradient_accumulation_steps": 1, "learning_rate": 0.003, "warmup_ratio": 0.0, "save_steps": 1000}
    paths = {"save_model_path": "saved/router", "load_model_path": "saved/router/merged"}
    path = write(data={**files, "llm_data": "data/llm.json"}, model_path=paths, hparam=hparam)

    router = CausalLMRouter(yaml_path=path)
    CausalLMRouterTrainer(router=router).train()
    with router:
        assert router.route_single({"query": "that small model 5?"})["model_name"] == "small"
        routes = router.route_batch()
    expected = list(labelled_queries("test", 12))
    assert [route["query"] for route in routes] == [query for query, _, _ in expected]
    assert [(route["task_name"], route["model_name"]) for route in routes] == [
        (task, best) for _, task, best in expected
    ]
    assert {route["metric"] for route in routes} == {"em_mc"}, "the row's own keys stay"

    report = json.loads((Path.cwd() / "saved" / "router" / "report.json").read_text(encoding="utf-8"))
    assert report["num_queries"] == 12
    with pytest.raises(ValueError, match="must be a folder without a finished run"):
        CausalLMTrainer(router=router, device="cpu").train()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": ""}', "query is empty"),
        ('{"task_name": "sums"}', "query must be a text, got NoneType"),
        ('{"query": "a"', "broken JSON"),
        ('["a"]', "the row must be an object, got list"),
    ],
)
@pytest.mark.slow
def test_bad_test_query_names_file_and_line(line: str, message: str, folder: Path, write: Callable[..., Path]) -> None:
    queries = folder / "data" / "query_test.jsonl"
    queries.write_text(f'{{"query": "fine"}}\n\n{line}\n', encoding="utf-8")
    data = {"routing_data_train": "data/routing_train.jsonl", "query_data_test": "data/query_test.jsonl"}
    router = CausalLMRouter(yaml_path=write(data=data))
    with pytest.raises(ValueError) as caught:
        router.route_batch()
    assert str(caught.value).startswith(f"{queries}:3: {message}")


def test_route_batch_without_test_queries_needs_a_batch(write: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"data_path\.query_data_test must be set .*, got None"):
        CausalLMRouter(yaml_path=write()).route_batch()
