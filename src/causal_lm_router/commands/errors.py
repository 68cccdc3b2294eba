"""How a command ends on bad input: one line on standard error and status 1."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from causal_lm_router.config.redact import redact_text
from causal_lm_router.terminal import visible


def fail(text: str) -> NoReturn:
    """Print an error's text in one line and leave with status 1."""
    line = "; ".join(part.strip() for part in redact_text(text).splitlines() if part.strip())
    print(f"error: {visible(line)}", file=sys.stderr)
    raise SystemExit(1)


def end_quietly() -> NoReturn:
    """Leave as a program does whose reader, such as `head`, has read enough."""
    # What is still in the buffer goes nowhere, else Python complains at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(128 + signal.SIGPIPE)


@contextmanager
def fail_on_bad_input() -> Iterator[None]:
    """Turn the errors that bad input raises, ValueError and OSError, into one line; others keep their traceback."""
    try:
        yield
    except BrokenPipeError:
        end_quietly()
    except (ValueError, OSError) as error:
        fail(str(error))
