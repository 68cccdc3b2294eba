"""metrics.csv, secrets, TensorBoard, and W&B runs read back with W&B's own tools."""

import json
import logging
import math
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from causal_lm_router.config import TrackingConfig, WandbConfig, WandbMode
from causal_lm_router.config.redact import names_secret, redact_arguments
from causal_lm_router.runs.tracking import MetricRow, Tracking, open_tracking, read_metrics, redact
from tests.wandb_server import KEY, FakeServer, of_kind, offline_folders, records


def config_of(mode: str, tensorboard: bool = False) -> TrackingConfig:
    wandb = WandbConfig(
        mode=WandbMode(mode),
        project="routing",
        entity=None,
        group="sweep-1",
        tags=["small", "cpu"],
        log_adapter=True,
        init_timeout_s=10,
    )
    return TrackingConfig(wandb=wandb, tensorboard=tensorboard)


def record_everything(tracking: Tracking, run_dir: Path) -> None:
    adapter = run_dir / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    (run_dir / "report.json").write_text("{}")
    for logger in tracking.loggers:
        logger.log_metrics({"train/loss": 0.1 + 0.2, "epoch": 0}, 5)
    tracking.log_report({"routing_accuracy": 0.75}, "test", 6)
    rows = [
        {"query_id": "q1", "generation": "llama", "route": "llama", "failure": None, "score": 1.0},
        {"query_id": "q2", "generation": "", "route": None, "failure": "empty", "score": 0, "names": ["a", "b"]},
    ]
    tracking.log_outcomes(rows, "test", 6)
    tracking.log_confusion(["a", "b"], [[1, 2, 0], [0, 1, 3]], "test", 6)
    tracking.log_adapter(adapter)
    tracking.log_files([run_dir / "report.json"])


# metrics.csv


def csv_logger(run_dir: Path) -> Any:
    from causal_lm_router.runs.tracking.metrics_csv import MetricsCsv

    return MetricsCsv(run_dir)


def test_metrics_csv_has_one_row_per_metric(tmp_path: Path) -> None:
    logger = csv_logger(tmp_path / "run")
    logger.log_metrics({"train/loss": 0.1 + 0.2, "epoch": 1, "lr": 2e-05}, 7)
    logger.log_metrics({"test/task/a, b": 1}, 8)
    assert logger.path == tmp_path / "run" / "metrics.csv"
    assert logger.path.read_text() == (
        'step,epoch,name,value\n7,1,train/loss,0.30000000000000004\n7,1,lr,2e-05\n8,,"test/task/a, b",1.0\n'
    )
    assert read_metrics(logger.path) == [
        (7, 1, "train/loss", 0.30000000000000004),
        (7, 1, "lr", 2e-05),
        (8, None, "test/task/a, b", 1.0),
    ]


def test_floats_come_back_bit_for_bit(tmp_path: Path) -> None:
    values = [1 / 3, 5e-324, -0.0, 1.7976931348623157e308, math.inf, 0.1 + 0.7]
    logger = csv_logger(tmp_path)
    logger.log_metrics({str(index): value for index, value in enumerate(values)} | {"nan": math.nan}, 0)
    *rows, last = read_metrics(logger.path)
    assert [row.value.hex() for row in rows] == [value.hex() for value in values]
    assert math.isnan(last.value)


@pytest.mark.parametrize("torn", ["3,0,train/lo", "3,0,train/loss,0.1", "3", "\xff"])
def test_a_torn_last_line_is_left_out_and_then_removed(tmp_path: Path, torn: str) -> None:
    logger = csv_logger(tmp_path)
    logger.path.write_bytes(b"step,epoch,name,value\n2,0,train/loss,0.5\n" + torn.encode("latin-1"))
    assert read_metrics(logger.path) == [(2, 0, "train/loss", 0.5)]
    logger.log_metrics({"train/loss": 0.25}, 3)
    assert logger.path.read_text() == "step,epoch,name,value\n2,0,train/loss,0.5\n3,,train/loss,0.25\n"


def test_a_torn_header_is_written_anew(tmp_path: Path) -> None:
    logger = csv_logger(tmp_path)
    logger.path.write_text("step,ep")
    assert read_metrics(logger.path) == []
    logger.log_metrics({"a": 1.0}, 0)
    assert logger.path.read_text() == "step,epoch,name,value\n0,,a,1.0\n"


def test_drop_after_keeps_rows_up_to_the_step(tmp_path: Path) -> None:
    logger = csv_logger(tmp_path)
    for step in (1, 2, 3, 2):
        logger.log_metrics({"a": step / 10}, step)
    with logger.path.open("a") as file:
        file.write("9,0,a")
    logger.drop_after(2)
    assert logger.path.read_text() == "step,epoch,name,value\n1,,a,0.1\n2,,a,0.2\n2,,a,0.2\n"
    assert os.listdir(tmp_path) == ["metrics.csv"]
    logger.log_metrics({"a": 0.3}, 3)
    assert read_metrics(logger.path)[-1] == MetricRow(3, None, "a", 0.3)


def test_drop_after_without_a_file_does_nothing(tmp_path: Path) -> None:
    csv_logger(tmp_path).drop_after(3)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("line", ["1,0,a", "x,0,a,1.0", "1,0,a,one", "1,0,a,1.0,2", ""])
def test_a_broken_row_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,epoch,name,value\n0,0,a,1.0\n{line}\n2,0,a,1.0\n")
    with pytest.raises(ValueError, match=r"metrics\.csv:3: "):
        read_metrics(path)


def test_another_table_is_no_metrics_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("name,value\na,1.0\n")
    with pytest.raises(ValueError, match=r"metrics\.csv:1: .*'name,value'"):
        read_metrics(tmp_path / "metrics.csv")


def test_metrics_without_step_or_with_a_line_break_in_the_name_are_refused(tmp_path: Path) -> None:
    logger = csv_logger(tmp_path)
    with pytest.raises(ValueError, match=r"\['a'\] must come with a step"):
        logger.log_metrics({"a": 1.0})
    with pytest.raises(ValueError, match="must be one line"):
        logger.log_metrics({"a\nb": 1.0}, 0)
    assert os.listdir(tmp_path) == []


def test_the_logger_can_be_sent_to_another_process(tmp_path: Path) -> None:
    logger = csv_logger(tmp_path)
    logger.log_metrics({"a": 1.0}, 0)
    pickle.loads(pickle.dumps(logger)).log_metrics({"a": 2.0}, 1)
    assert [row.value for row in read_metrics(logger.path)] == [1.0, 2.0]


# Secrets


@pytest.mark.parametrize(
    "name",
    [
        *("key", "api_key", "apiKey", "wandb.api_key", "OPENAI_APIKEY", "private-key", "AWS_SECRET_ACCESS_KEY"),
        *("token", "hf_token", "HF_TOKEN", "api_tokens", "secret", "client_secret", "secretName", "db_password"),
        *("passphrase", "credentials", "authorization"),
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert names_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *("max_new_tokens", "max_tokens_per_batch", "assumed_output_tokens", "num_tokens", "tokens_per_second"),
        *("tokenizer", "tokenizer_revision", "eos_token", "pad_token", "stop_token_ids", "token_budget"),
        *("monkey", "keyboard", "keep_undecided", "author", "path", "7"),
    ],
)
def test_names_of_harmless_settings(name: str) -> None:
    assert not names_secret(name)


def test_redact_reaches_nested_values_and_leaves_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "plain-words-secret")
    config = {
        "engine_args": {"hf_token": "hf_x", "max_num_seqs": 8, "auth": None, "use_auth": True},
        "api_keys": {"openai": "x", "others": ["y", 3]},
        "password": 1234,
        "tags": ["a", "plain-words-secret", ("Bearer plain-words-secret!",)],
        "proxy": "see https://joe:p@ss@proxy.example:8080/x and s3://bucket/key",
        "url": "https://example.com/v1?user=joe&api_key=abc&page=2#top",
        "note": "used sk-abcdefghijklmnop1234 then",
        "max_new_tokens": 32,
        "tokenizer": "llama",
    }
    before = json.dumps(config)
    assert redact(config) == {
        "engine_args": {"hf_token": "<redacted>", "max_num_seqs": 8, "auth": None, "use_auth": True},
        "api_keys": {"openai": "<redacted>", "others": ["<redacted>", "<redacted>"]},
        "password": "<redacted>",
        "tags": ["a", "<redacted>", ("Bearer <redacted>!",)],
        "proxy": "see https://<redacted>@proxy.example:8080/x and s3://bucket/key",
        "url": "https://example.com/v1?user=joe&api_key=<redacted>&page=2#top",
        "note": "used <redacted> then",
        "max_new_tokens": 32,
        "tokenizer": "llama",
    }
    assert json.dumps(config) == before


def test_redact_arguments_of_a_command_line() -> None:
    arguments = ["train", "+x.args={hf_token: abc, seed: 1}", "x.api_key='a b'", "+api_keys=[a,b]", "lora.lora_r=4,8"]
    assert redact_arguments(arguments) == [
        "train",
        "+x.args={hf_token: <redacted>, seed: 1}",
        "x.api_key=<redacted>",
        "+api_keys=<redacted>",
        "lora.lora_r=4,8",
    ]


# Loggers together


@pytest.mark.slow
def test_importing_tracking_imports_no_heavy_library() -> None:
    heavy = "torch wandb pytorch_lightning hydra tensorboard"
    code = f"import sys, causal_lm_router.runs.tracking; print([m for m in '{heavy}'.split() if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_disabled_leaves_csv_and_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_tracking(config_of("disabled", tensorboard=True), "n", tmp_path, {}, "id1") as tracking:
        record_everything(tracking, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["adapter", "metrics.csv", "report.json", "tensorboard"]
    assert [row[:3] for row in read_metrics(tmp_path / "metrics.csv")] == [
        (5, 0, "train/loss"),
        (6, None, "test/routing_accuracy"),
    ]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["epoch", "test/routing_accuracy", "train/loss"]
    assert [(event.step, event.value) for event in events.Scalars("test/routing_accuracy")] == [(6, 0.75)]


@pytest.mark.slow
def test_resuming_drops_later_metrics_in_csv_and_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resume_step, steps in ((None, (1, 2, 3)), (1, (2,))):
        with open_tracking(
            config_of("disabled", tensorboard=True), "n", tmp_path, {}, "id1", resume_step=resume_step
        ) as tracking:
            for step in steps:
                tracking.log_report({"a": float(step)}, "validation", step)
        time.sleep(1.1)  # TensorBoard names its files by the second and reads them in that order.
    assert [row.step for row in read_metrics(tmp_path / "metrics.csv")] == [1, 2]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("validation/a")] == [1, 2]


@pytest.mark.slow
def test_a_trainer_takes_the_loggers(tmp_path: Path, client: None) -> None:
    import pytorch_lightning as pl
    import torch

    class Line(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: torch.Tensor) -> torch.Tensor:
            loss = self.layer(batch).square().mean()
            self.log("train/loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    with open_tracking(config_of("offline"), "n", tmp_path, {}, "id1") as tracking:
        trainer = pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=tracking.loggers,
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(Line(), torch.utils.data.DataLoader(torch.ones(2, 1)))
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row[:3] for row in rows] == [(step, step // 2, "train/loss") for step in range(4)]
    history = of_kind(records(offline_folders(tmp_path)[0]), "history")
    assert [item["item"]["train/loss"] for item in history] == [row.value for row in rows]
    assert [item["item"]["trainer/global_step"] for item in history] == [0, 1, 2, 3]


def test_other_processes_than_the_first_record_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with open_tracking(config_of("online", tensorboard=True), "n", tmp_path / "run", {}, "id1") as tracking:
        tracking.log_report({"a": 1.0}, "test", 1)
        tracking.log_outcomes([{"a": 1}], "test", 1)
    assert not (tmp_path / "run").exists()


# W&B


@pytest.mark.slow
def test_an_offline_run_holds_everything(tmp_path: Path, client: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "x.api_key=topsecret", "seed=1"])
    run_config = {"lora": {"lora_r": 16}, "hf_token": "topsecret", "max_new_tokens": 32}
    with open_tracking(config_of("offline"), "my run", tmp_path, run_config, "id1") as tracking:
        record_everything(tracking, tmp_path)
    (folder,) = offline_folders(tmp_path)
    found = records(folder)

    (run,) = of_kind(found, "run")
    assert run["config"]["update"]["lora"] == {"lora_r": 16}
    assert run["config"]["update"]["hf_token"] == "<redacted>"
    assert run["config"]["update"]["max_new_tokens"] == 32
    names = ("display_name", "run_id", "project", "run_group", "job_type", "tags")
    assert [run[name] for name in names] == ["my run", "id1", "routing", "sweep-1", "train", ["small", "cpu"]]
    assert of_kind(found, "environment")[0]["args"] == ["x.api_key=<redacted>", "seed=1"]
    assert not [file for file in folder.rglob("*") if file.is_file() and b"topsecret" in file.read_bytes()]

    axis = [metric for metric in of_kind(found, "metric") if "glob_name" in metric]
    assert [(metric["glob_name"], metric["step_metric"]) for metric in axis] == [("*", "trainer/global_step")]
    history = [record["item"] for record in of_kind(found, "history")]
    assert (history[0]["train/loss"], history[0]["trainer/global_step"]) == (0.1 + 0.2, 5)
    assert (history[1]["test/routing_accuracy"], history[1]["trainer/global_step"]) == (0.75, 6)
    assert [item["trainer/global_step"] for item in history] == [5, 6, 6, 6]
    assert [done["exit_code"] for done in of_kind(found, "exit")] == [0]

    artifacts = {artifact["type"]: artifact for artifact in of_kind(found, "artifact")}
    assert artifacts["model"]["name"] == "adapter-id1"
    (file,) = artifacts["model"]["manifest"]["contents"]
    assert (file["path"], file["size"]) == ("adapter_model.safetensors", "7")
    files = [file["path"] for record in of_kind(found, "files") for file in record["files"]]
    assert "report.json" in files


def table(folder: Path, pattern: str) -> Any:
    (path,) = (folder / "files" / "media" / "table").rglob(pattern)
    return json.loads(path.read_text())


@pytest.mark.slow
def test_an_offline_run_holds_generations_and_confusion(tmp_path: Path, client: None) -> None:
    with open_tracking(config_of("offline"), "n", tmp_path, {}, "id1") as tracking:
        record_everything(tracking, tmp_path)
    (folder,) = offline_folders(tmp_path)
    assert table(folder, "outcomes_*.table.json") == {
        "columns": ["query_id", "generation", "route", "failure", "score", "names"],
        "data": [["q1", "llama", "llama", None, 1.0, None], ["q2", "", None, "empty", 0, '["a", "b"]']],
    }
    assert table(folder, "confusion_table_*.table.json") == {
        "columns": ["Actual", "Predicted", "nPredictions"],
        "data": [
            ["a", "a", 1],
            ["a", "b", 2],
            ["a", "(no route)", 0],
            ["b", "a", 0],
            ["b", "b", 1],
            ["b", "(no route)", 3],
        ],
    }
    # Prepared for upload inside the run folder, so that moving the home folder away loses nothing.
    staged = [
        content["local_path"]
        for artifact in of_kind(records(folder), "artifact")
        for content in artifact["manifest"]["contents"]
    ]
    assert len(staged) == 3
    assert all(Path(path).is_relative_to(tmp_path) and Path(path).is_file() for path in staged)
    assert "WANDB_DATA_DIR" not in os.environ


def test_a_confusion_of_another_shape_is_refused(tmp_path: Path) -> None:
    tracking = Tracking([], None, tmp_path, log_adapter=True)
    with pytest.raises(ValueError, match="3 counts, got rows of"):
        tracking.log_confusion(["a", "b"], [[1, 0], [0, 1]], "test", 0)


@pytest.mark.slow
def test_two_jobs_of_one_process_are_two_runs(tmp_path: Path, client: None) -> None:
    import wandb

    for name in ("one", "two"):
        with open_tracking(config_of("offline"), name, tmp_path / name, {"name": name}, name) as tracking:
            tracking.log_report({"a": 1.0}, "test", 1)
    assert wandb.run is None
    for name in ("one", "two"):
        (folder,) = offline_folders(tmp_path / name)
        found = records(folder)
        (run,) = of_kind(found, "run")
        assert (run["run_id"], run["display_name"], run["config"]["update"]["name"]) == (name, name, name)
        assert len(of_kind(found, "history")) == len(of_kind(found, "exit")) == 1


@pytest.mark.slow
def test_a_run_of_someone_else_in_the_process_is_left_alone(tmp_path: Path, client: None) -> None:
    import wandb

    other = wandb.init(mode="offline", id="other", dir=tmp_path, settings=wandb.Settings(silent=True, console="off"))
    with open_tracking(config_of("auto"), "n", tmp_path / "run", {}, "id1") as tracking:
        tracking.log_report({"a": 1.0}, "test", 1)
    assert wandb.run is other
    other.log({"b": 2.0})
    other.finish()
    for run_dir, name in ((tmp_path, "b"), (tmp_path / "run", "test/a")):
        (item,) = of_kind(records(offline_folders(run_dir)[0]), "history")
        assert name in item["item"]


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt()])
@pytest.mark.slow
def test_a_job_that_raises_is_closed_as_failed(tmp_path: Path, client: None, failure: BaseException) -> None:
    def job() -> None:
        with open_tracking(config_of("offline"), "n", tmp_path, {}, "id1") as tracking:
            tracking.log_report({"a": 1.0}, "test", 1)
            raise failure

    with pytest.raises(type(failure)):
        job()
    (folder,) = offline_folders(tmp_path)
    assert of_kind(records(folder), "exit")[0]["exit_code"] == 1


@pytest.mark.slow
def test_a_resumed_job_gets_another_offline_folder_of_the_same_run(tmp_path: Path, client: None) -> None:
    for _ in range(2):
        with open_tracking(config_of("offline"), "n", tmp_path, {}, "id1") as tracking:
            tracking.log_report({"a": 1.0}, "test", 1)
    folders = offline_folders(tmp_path)
    runs = [of_kind(records(folder), "run")[0] for folder in folders]
    assert [(run["run_id"], run["resume"]) for run in runs] == [("id1", True)] * 2


@pytest.mark.slow
def test_auto_without_a_key_records_offline_and_says_so_in_one_line(
    tmp_path: Path, client: None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO), open_tracking(config_of("auto"), "n", tmp_path, {}, "id1") as tracking:
        record_everything(tracking, tmp_path)
    (message,) = [record.message for record in caplog.records if record.name.startswith("causal_lm_router")]
    assert message == (
        "W&B records offline: there is no W&B API key (set WANDB_API_KEY or run `wandb login`). "
        f"To upload: wandb sync {tmp_path}/wandb/offline-run-*"
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_auto_follows_the_mode_of_wandb_itself(
    tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with open_tracking(config_of("auto"), "n", tmp_path, {}, "id1") as tracking:
        assert len(tracking.loggers) == 1
    assert not (tmp_path / "wandb").exists()
    assert server.questions == []


@pytest.mark.slow
def test_auto_with_a_key_that_cannot_be_one_records_offline(
    tmp_path: Path, client: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with open_tracking(config_of("auto"), "n", tmp_path, {}, "id1"):
        pass
    assert "the W&B API key cannot be used" in caplog.text
    assert len(offline_folders(tmp_path)) == 1


@pytest.mark.slow
def test_online_demands_a_key(tmp_path: Path, client: None) -> None:
    with (
        pytest.raises(ValueError, match=r"tracking\.wandb\.mode must be .*, got 'online': there is no W&B API key"),
        open_tracking(config_of("online"), "n", tmp_path / "run", {}, "id1"),
    ):
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_online_demands_a_server(tmp_path: Path, client: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    start = time.monotonic()
    with (
        pytest.raises(
            ConnectionError, match=r"tracking\.wandb\.mode must be .*, got 'online': .*127\.0\.0\.1:9 cannot be reached"
        ),
        open_tracking(config_of("online"), "n", tmp_path / "run", {}, "id1"),
    ):
        pass
    assert time.monotonic() - start < 5


def timed(job: Callable[[], None]) -> float:
    start = time.monotonic()
    job()
    return time.monotonic() - start


@pytest.mark.slow
@pytest.mark.parametrize("answers", ["refuses", "never"])
def test_an_unreachable_server_holds_a_job_for_seconds_only(
    tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch, answers: str
) -> None:
    server.hangs = True
    if answers == "refuses":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")

    def job() -> None:
        with open_tracking(config_of("auto"), "n", tmp_path, {}, "id1") as tracking:
            record_everything(tracking, tmp_path)

    assert timed(job) < 15
    (folder,) = offline_folders(tmp_path)
    assert of_kind(records(folder), "exit")[0]["exit_code"] == 0


@pytest.mark.slow
def test_a_server_that_goes_away_holds_a_job_for_seconds_only(
    tmp_path: Path, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    def job() -> None:
        with open_tracking(config_of("auto"), "n", tmp_path, {}, "id1") as tracking:
            server.hangs = True
            record_everything(tracking, tmp_path)

    assert timed(job) < 15
    assert "W&B does not get the table test/outcomes" in caplog.text
    (folder,) = (tmp_path / "wandb").glob("run-*")
    assert f"wandb sync --include-online {folder}" in caplog.text
    assert [item["item"]["trainer/global_step"] for item in of_kind(records(folder), "history")] == [5, 6]
    assert len(read_metrics(tmp_path / "metrics.csv")) == 2


@pytest.mark.slow
def test_an_online_run_sends_its_redacted_config(tmp_path: Path, server: FakeServer) -> None:
    with open_tracking(config_of("auto"), "my run", tmp_path, {"hf_token": "topsecret", "seed": 3}, "id1") as tracking:
        tracking.log_report({"a": 1.0}, "test", 1)
        tracking.log_outcomes([{"query_id": "q1"}], "test", 1)
    opened = server.variables("UpsertBucket")[0]
    assert (opened["name"], opened["project"], opened["groupName"]) == ("id1", "routing", "sweep-1")
    config = json.loads(opened["config"])
    assert (config["hf_token"]["value"], config["seed"]["value"]) == ("<redacted>", 3)
    assert server.variables("RunResumeStatus")[0]["name"] == "id1"
    assert [asked["input"]["artifactTypeName"] for asked in server.variables("CreateArtifact")] == ["run_table"]


@pytest.mark.slow
def test_a_server_that_refuses_the_run_leaves_an_offline_run_of_the_same_id(
    tmp_path: Path, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.refuses = True
    with open_tracking(config_of("auto"), "n", tmp_path, {}, "id1") as tracking:
        tracking.log_report({"a": 1.0}, "test", 1)
    assert "W&B records offline: the W&B server did not open the run" in caplog.text
    (folder,) = offline_folders(tmp_path)
    found = records(folder)
    assert of_kind(found, "run")[0]["run_id"] == "id1"
    assert len(of_kind(found, "history")) == 1


@pytest.mark.slow
def test_an_offline_run_can_be_uploaded(tmp_path: Path, server: FakeServer) -> None:
    with open_tracking(config_of("offline"), "n", tmp_path, {"seed": 3}, "id1") as tracking:
        record_everything(tracking, tmp_path)
    command = [sys.executable, "-m", "wandb", "sync", *map(str, offline_folders(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert server.variables("UpsertBucket")[0]["name"] == "id1"
    names = {asked["input"]["artifactCollectionName"] for asked in server.variables("CreateArtifact")}
    assert "adapter-id1" in names
    assert len(names) == 3


def kill_helper() -> None:
    (helper,) = [child for child in psutil.Process().children() if child.name() == "wandb-core"]
    helper.kill()
    helper.wait()


@pytest.mark.slow
def test_a_job_outlives_the_helper_process_of_wandb(
    tmp_path: Path, client: None, caplog: pytest.LogCaptureFixture
) -> None:
    with open_tracking(config_of("offline"), "n", tmp_path / "one", {}, "one") as tracking:
        kill_helper()
        for step in range(3):
            tracking.log_report({"a": 1.0}, "test", step)
    assert len(read_metrics(tmp_path / "one" / "metrics.csv")) == 3
    assert "W&B gets nothing more of this job" in caplog.text
    for name in ("two", "three"):
        with open_tracking(config_of("offline"), "n", tmp_path / name, {}, name) as tracking:
            tracking.log_report({"a": 1.0}, "test", 1)
        # A first attempt to open the run may have left a folder without a run file.
        (folder,) = [folder for folder in offline_folders(tmp_path / name) if list(folder.glob("*.wandb"))]
        assert len(of_kind(records(folder), "history")) == 1
        kill_helper()
