"""What a person sees of a run: its own lines and its progress bars. What libraries say goes to the run's log file."""

import contextlib
import logging
import os
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from typing import IO, Any, TypeVar

from rich.text import Text
from tqdm import tqdm

from causal_lm_router.routing import INVISIBLE

Item = TypeVar("Item")

DELAY_S = 3.0
"""Work that takes less time than this shows no progress bar."""
QUIET = "CAUSAL_LM_ROUTER_QUIET"
"""Environment variable: with 1 the terminal shows warnings, errors and results alone. `--quiet` sets it."""
_PREFIXES = {logging.WARNING: "warning: ", logging.ERROR: "error: ", logging.CRITICAL: "error: "}
_PACKAGE = __name__.partition(".")[0]
_work: ContextVar[tuple[str, ...]] = ContextVar("work", default=())
_bars_shown = True


def visible(text: str) -> str:
    """Return the text with an escape, such as `\\x1b`, for every INVISIBLE character but line feeds and tabs.

    Names, tasks and messages come from files: printed raw, an escape sequence could clear the screen or hide a line.
    """
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if char not in "\n\t" and unicodedata.category(char) in INVISIBLE
        else char
        for char in text
    )


def plain_text(text: str, style: str = "") -> Text:
    """Return what a table's cell or a line shows of a text: made visible, and square brackets are no markup."""
    return Text(visible(text), style)


class TerminalHandler(logging.Handler):
    """Writes to standard output the records of this package, and of libraries only errors.

    Nothing else that a library logs asks for an action. A line appears above the progress bars.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record: the message alone, after the level where it is a warning or an error."""
        is_ours = record.name.partition(".")[0] == _PACKAGE
        least = logging.ERROR if not is_ours else logging.WARNING if is_quiet() else logging.NOTSET
        if record.levelno < least:
            return
        # As the logging module's own handlers do: a message that cannot be written must not end the job.
        try:
            source = "" if is_ours else f"{record.name}: "
            line = f"{_PREFIXES.get(record.levelno, '')}{source}{self.format(record)}"
            tqdm.write(visible(line), file=sys.stdout)
        except Exception:
            self.handleError(record)


class _Bar(tqdm):  # type: ignore[misc]
    """A bar that keeps to its delay also where a library asks for a refresh, which tqdm would leave on the screen."""

    def refresh(self, *arguments: Any, **options: Any) -> None:
        """Draw the bar, once the delay is over."""
        if self.delay <= 0 or self._time() >= self.start_t + self.delay:
            super().refresh(*arguments, **options)
            # Closing clears only what was drawn after the delay, by this time.
            self.last_print_t = self._time()


def log_to_file(message: str, *, with_traceback: bool) -> None:
    """Write a line, and the traceback of the error that is being handled, to the log file and not to the terminal."""
    error = sys.exc_info() if with_traceback else None
    record = logging.getLogger(__name__).makeRecord(__name__, logging.ERROR, "", 0, message, (), error)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def is_quiet() -> bool:
    """True where the terminal should show warnings, errors and results alone, also in the processes of a sweep."""
    return os.environ.get(QUIET) == "1"


def show_bars(shown: bool) -> None:
    """Show progress bars from now on, or none."""
    global _bars_shown
    _bars_shown = shown


@contextlib.contextmanager
def name_work(name: str) -> Iterator[None]:
    """Have the progress bars inside the block say what the work belongs to, such as the split that is evaluated."""
    # A context variable: threads and nested blocks do not see one another's names.
    token = _work.set((*_work.get(), name))
    try:
        yield
    finally:
        _work.reset(token)


def progress_bar(
    items: Iterable[Item] | None = None,
    *,
    unit: str,
    name: str | None = None,
    total: int | None = None,
    done: int = 0,
) -> "tqdm[Item]":
    """Return a bar that passes items on, or that `update` moves: "test, scored: 120/601 queries, 00:32 left".

    It shows where standard error is a terminal, after `DELAY_S`, and disappears at its end. Of items whose number is
    not known it shows how many there were. `done` items were there before: they count as done, but not for the time
    left.
    """
    # Generators have no length: without a total the bar counts up and shows the time taken.
    if total is None and isinstance(items, Sized):
        total = len(items)
    counts = "{n:,.0f} {unit}, {elapsed}" if total is None else "{n:,.0f}/{total:,.0f} {unit}, {remaining} left"
    return _Bar(
        items,
        desc=", ".join([*_work.get(), *([name] if name else [])]),
        total=total,
        initial=done,
        unit=unit,
        delay=DELAY_S,
        leave=False,
        disable=None if _bars_shown and not is_quiet() else True,  # None: where standard error is no terminal
        bar_format="{desc}: " + counts,
    )


@contextlib.contextmanager
def divert_output() -> Iterator[Callable[[], str]]:
    """Send what is written to standard output and error in the block to the log file, or nowhere without one.

    Yields a function that returns what was written so far. That includes what native code and child processes write.
    Both are restored at the end. After an error other than a ValueError, whose message says it all, what was written is
    shown.
    """
    # The descriptors themselves are changed, since native code and child processes do not know Python's streams.
    with _open_log() as log:
        start = log.seek(0, os.SEEK_END)
        _flush()
        kept = [os.dup(descriptor) for descriptor in (1, 2)]
        is_unclear = False

        def written() -> bytes:
            _flush()
            # Only what this block has written, not the log before it.
            log.seek(start)
            return log.read()

        try:
            for descriptor in (1, 2):
                os.dup2(log.fileno(), descriptor)
            yield lambda: written().decode(errors="replace")
        except Exception as error:
            is_unclear = not isinstance(error, ValueError)
            raise
        finally:
            _flush()
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
            if is_unclear:
                os.write(2, written())


def _open_log() -> IO[bytes]:
    """Open the log file that a command has set up, else a temporary file."""
    # Opened to append: the handler goes on writing to the same file.
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            return open(handler.baseFilename, "a+b")
    return tempfile.TemporaryFile()


def _flush() -> None:
    # What Python still holds belongs to the stream as it was when it was written.
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
