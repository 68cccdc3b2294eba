"""What a person sees of a run: its own lines and bars; what libraries say is in the log file."""

import logging
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from causal_lm_router import terminal
from causal_lm_router.commands.errors import fail
from causal_lm_router.terminal import TerminalHandler, divert_output, name_work, plain_text, progress_bar, visible
from tests.conftest import CACHE, Result

LIBRARIES = "lightning|torch|vllm|triton|transformers|tokenizers|datasets|matplotlib|wandb|optuna|hydra|site-packages"
PROGRAMME = "from causal_lm_router.commands.cli import main; main()"


def on_a_terminal(arguments: list[str], folder: Path) -> str:
    """What a terminal of 100 columns shows of a command line, without the codes that move the cursor."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    environment = os.environ | {CACHE: str(folder / "cache"), "TERM": "xterm"}
    command = [sys.executable, "-c", PROGRAMME, *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment)
    os.close(theirs)
    shown = b""
    # Reading fails with EIO once the process has closed its end.
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:
        pass
    os.close(ours)
    text = shown.decode()
    assert process.wait() == 0, text
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n")


@pytest.mark.slow
def test_the_terminal_shows_our_lines_and_the_log_file_the_rest(tmp_path: Path) -> None:
    shown = on_a_terminal(["train", "debug=smoke", "data=simulated", "run_dir=run"], tmp_path)
    before, heading, report = shown.partition("12 queries, 6 LLMs to choose from")
    assert heading
    # A report may open with warnings, and failed generations.
    before = before.partition("\nwarning: ")[0]
    lines = [line for line in before.splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith("training, epoch 1 of 1: ")]
    made = next((tmp_path / "cache" / "base_models").iterdir())
    assert own[:2] == [f"preparing base model tiny-llama in {made}", "run folder: run"]
    assert [line.partition(":")[0] for line in own[2:5]] == ["data", "base model", "training"]
    assert any("6/6" in line and "loss=" in line for line in lines)
    # Not for a moment Lightning's own words, nor a length that is not known.
    assert re.search(r"v_num|Training:|Epoch \d|/\?", before) is None
    assert re.search(rf"warning|\bINFO\b|\btip\b|{LIBRARIES}", report, re.IGNORECASE) is None
    assert report.rstrip().endswith("run folder: run")
    log = (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    assert "[causal_lm_router.files.checksums][INFO] - preparing base model tiny-llama" in log
    assert "[pytorch_lightning.utilities.rank_zero][INFO] - `Trainer.fit` stopped" in log
    assert "[py.warnings][WARNING]" in log


def test_a_library_gets_through_with_errors_alone(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    handler = TerminalHandler()
    logging.root.addHandler(handler)
    names = ("causal_lm_router.runs.fit", "other.part", "causal_lm_router_like")
    # As Hydra sets the levels for a command; caplog puts them back.
    for name in ("", "causal_lm_router", *names):
        caplog.set_level(logging.INFO, name)
    for name in names:
        for level in (logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(level, "message")
    logging.root.removeHandler(handler)
    assert capsys.readouterr().out.splitlines() == [
        "message",
        "warning: message",
        "error: message",
        "error: other.part: message",
        "error: causal_lm_router_like: message",
    ]


def test_quiet_leaves_warnings_and_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(terminal.QUIET, "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert progress_bar(unit="rows").disable
    handler = TerminalHandler()
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        handler.emit(logging.LogRecord("causal_lm_router.runs", level, "", 0, "message", (), None))
    assert capsys.readouterr().out.splitlines() == ["warning: message", "error: message"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--quiet", "data"], ["data", "-q"]])
def test_quiet_is_one_option_of_every_command(
    words: list[str], main: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(terminal.QUIET, "0")
    result = main(*words, "data=simulated", "debug=smoke")
    assert (result.status, result.errors) == (0, "")
    assert os.environ[terminal.QUIET] == "1"


def test_a_bar_names_its_work_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(terminal, "DELAY_S", 0.0)
    with name_work("test"), name_work("scored"), progress_bar(unit="queries", total=12) as bar:
        bar.update(8)
        assert re.fullmatch(r"test, scored: 8/12 queries, (\?|\d\d:\d\d) left", str(bar).strip())
    with progress_bar(["a", "b"], unit="rows", name="reading") as items:
        assert list(items) == ["a", "b"]
        assert str(items).startswith("reading: 2/2 rows, ")
    with progress_bar(unit="rows", name="reading") as bar:
        bar.update(3)
        assert re.fullmatch(r"reading: 3 rows, \d\d:\d\d", str(bar).strip())


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bar(unit="queries", total=2) as bar:
        bar.update(2)
        bar.refresh()  # as vLLM does at its end
    assert capsys.readouterr() == ("", "")


def test_no_bar_without_a_terminal_or_where_bars_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress_bar(unit="rows").disable, "pytest's standard error is no terminal"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert not progress_bar(unit="rows", total=1).disable
    terminal.show_bars(False)
    try:
        assert progress_bar(unit="rows").disable
    finally:
        terminal.show_bars(True)


@pytest.fixture(params=[True, False], ids=["with a log file", "without"])
def log_file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    """The log file that a command would set up, with a line in it, or None."""
    path = tmp_path / "train.log"
    path.write_text("an earlier line\n")
    handlers = [logging.FileHandler(path)] if request.param else []
    monkeypatch.setattr(logging.root, "handlers", handlers)
    return path if request.param else None


@pytest.mark.slow
def test_output_goes_to_the_log_file_and_comes_back(capfd: pytest.CaptureFixture[str], log_file: Path | None) -> None:
    print("before")
    with divert_output():
        os.write(2, b"from native code\n")
        subprocess.run(["echo", "from a child"], check=True)
    print("after")
    assert capfd.readouterr() == ("before\nafter\n", "")
    if log_file is not None:
        assert log_file.read_text().splitlines() == ["an earlier line", "from native code", "from a child"]


@pytest.mark.usefixtures("log_file")
def test_what_came_before_an_error_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), divert_output():
        os.write(2, b"root cause\n")
        raise RuntimeError
    assert capfd.readouterr() == ("", "root cause\n")
    with pytest.raises(ValueError), divert_output():
        os.write(2, b"chatter\n")
        raise ValueError("says it all")
    assert capfd.readouterr() == ("", "")


HOSTILE = "a\x1b[2J\x07b\u202ec\u200bd\x9be\ud83d"
SHOWN = "a\\x1b[2J\\x07b\\u202ec\\u200bd\\x9be\\ud83d"


def test_characters_that_show_nothing_are_shown_as_escapes() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible("模型-β é\u00a0x\n\ty") == "模型-β é\u00a0x\n\ty"
    assert plain_text(f"[red]{HOSTILE}").plain == f"[red]{SHOWN}"


def test_log_lines_and_errors_are_made_visible(capsys: pytest.CaptureFixture[str]) -> None:
    TerminalHandler().emit(
        logging.makeLogRecord({"name": "causal_lm_router.x", "msg": HOSTILE, "levelno": logging.INFO})
    )
    with pytest.raises(SystemExit):
        fail(HOSTILE)
    assert capsys.readouterr() == (f"{SHOWN}\n", f"error: {SHOWN}\n")


def test_every_table_shows_texts_through_one_function() -> None:
    # rich's Text takes escape sequences as they are, and markup of a plain string would be obeyed.
    package = Path(terminal.__file__).parent
    raw = {path.name for path in package.rglob("*.py") if re.search(r"(?<![\w.])Text\(", path.read_text())}
    assert raw == {"terminal.py"}
