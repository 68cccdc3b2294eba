"""How a command ends on bad input: one line on standard error and status 1."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from causal_lm_router.terminal import visible


def fail(text: str) -> NoReturn:
    """Print an error's text in one line and leave with status 1."""
    line = "; ".join(part.strip() for part in text.splitlines() if part.strip())
    print(f"error: {visible(line)}", file=sys.stderr)
    raise SystemExit(1)


@contextmanager
def fail_on_bad_input() -> Iterator[None]:
    """Turn the errors that bad input raises, ValueError and OSError, into one line; others keep their traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        fail(str(error))
