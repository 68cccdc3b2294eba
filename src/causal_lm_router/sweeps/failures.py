"""Why a job failed: by its own fault, or for a reason outside of it, such as a full disk, which may pass."""

import errno
import socket
from collections.abc import Iterator

from causal_lm_router.runs.job_log import FailureReason

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
_NO_SPACE = ("no space left on device", "disk quota exceeded", "file write failed")
"""Phrases in the errors of libraries that report a cause with an exception class of another kind. The last one is
torch's, which does not say why a file of weights could not be written."""
_NO_SERVER = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ReadTimeout")
"""Errors of the clients of the hub where nobody answers, by name: the clients are not imported for it."""


def failure_reason(error: BaseException) -> FailureReason:
    """Return the reason that an exception stands for in the job log; one that it was raised from counts too."""
    # Imported late: torch takes seconds, and a failure may be one before any job ran.
    import torch

    from causal_lm_router.training.module import NotFiniteError

    chain = list(_causes(error))
    texts = [str(one).lower() for one in chain]
    if any(isinstance(one, MemoryError | torch.OutOfMemoryError) for one in chain) or _says(texts, _OUT_OF_MEMORY):
        return FailureReason.oom
    if any(_is_full_disk(one) for one in chain) or _says(texts, _NO_SPACE):
        return FailureReason.no_space
    if any(_is_silent_server(one) for one in chain):
        return FailureReason.no_server
    return FailureReason.nan if isinstance(error, NotFiniteError) else FailureReason.error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, then what it was raised from, down to the first one."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _says(texts: list[str], phrases: tuple[str, ...]) -> bool:
    return any(phrase in text for text in texts for phrase in phrases)


def _is_full_disk(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_silent_server(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno == errno.ETIMEDOUT:
        return True
    # A broken pipe is one between two processes of this machine.
    if isinstance(error, ConnectionError | socket.gaierror) and not isinstance(error, BrokenPipeError):
        return True
    return any(kind.__name__ in _NO_SERVER for kind in type(error).__mro__)
