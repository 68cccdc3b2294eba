"""Why a job failed: its own fault, or one of the reasons that lie outside of it."""

import errno
import socket

import pytest
import torch

from causal_lm_router.runs.job_log import FailureReason
from causal_lm_router.sweeps.failures import failure_reason
from causal_lm_router.training.module import NotFiniteError


class LocalEntryNotFoundError(FileNotFoundError):
    """Named as the error of the hub's client where nobody answers and nothing is in its cache."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("lora.lora_r must be 1"), "error"),
        (FileNotFoundError(errno.ENOENT, "no such file"), "error"),
        (BrokenPipeError(errno.EPIPE, "broken pipe"), "error"),
        (NotFiniteError("the loss is nan"), "nan"),
        (MemoryError(), "oom"),
        (torch.OutOfMemoryError("CUDA"), "oom"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"), "oom"),
        (OSError(errno.ENOSPC, "No space left on device"), "no_space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no_space"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no_space"),
        (RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"), "no_space"),
        (ConnectionError("tracking.wandb.mode=online: the W&B server cannot be reached"), "no_server"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "no_server"),
        (socket.gaierror(socket.EAI_NONAME, "name unknown"), "no_server"),
        (LocalEntryNotFoundError("not in the cache"), "no_server"),
    ],
)
def test_reasons(error: Exception, reason: str) -> None:
    assert failure_reason(error) is FailureReason(reason)


def test_what_an_error_was_raised_from_counts() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as cause:
            raise ValueError("base_model.name='x': cannot be loaded") from cause
    except ValueError as error:
        assert failure_reason(error) is FailureReason.no_space
    hidden = ValueError("data.path must be a file")
    hidden.__context__, hidden.__suppress_context__ = OSError(errno.ENOSPC, "full"), True
    assert failure_reason(hidden) is FailureReason.error
