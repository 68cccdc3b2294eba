"""The start of a vLLM engine: its process, its memory, and what it says where it refuses an argument."""

import contextlib
import gc
import os
import re
from collections.abc import Iterator, Mapping
from textwrap import shorten
from typing import Any

import torch
from pydantic import ValidationError

from causal_lm_router.models.torch_state import keep_random_state, keep_torch_settings
from causal_lm_router.terminal import divert_output

_ENGINE_ERROR = re.compile(r"^(?:\w+\.)*(?:ValueError|TypeError|ValidationError): (.+)", re.MULTILINE)
"""The last line of the traceback of an engine process that refused a setting."""


def free_gpu_share() -> float:
    """Return the share of the GPU's memory that the engine may take: nine tenths of the free memory."""
    # What a trainer or an engine that is gone has left counts as free: their parts refer to one another, so only the
    # collector frees them, and vLLM starts no engine beside what is left of another. So does memory kept for reuse.
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return 0.9 * free / total


def new_llm(arguments: dict[str, Any]) -> Any:
    """Return a new vLLM engine on all cores; environment variables of vLLM that are already set win.

    It runs in this process, except beside a process group (of a distributed trainer, or of another engine), where it
    gets its own process: it would join the group, wait for the other ranks, and destroy the group at its end. Its start
    leaves the random state and torch's settings as they were, so that training does not depend on when it starts.
    """
    in_own_process = torch.distributed.is_available() and torch.distributed.is_initialized()
    settings = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(in_own_process)),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # by default it leaves one core out
        "VLLM_CONFIGURE_LOGGING": "0",  # its records go where the command's own logging has them
        "VLLM_NO_USAGE_STATS": "1",
    }
    # What keeps `VllmEngine.generate` from compiling does not reach into another process.
    if in_own_process and arguments.get("enforce_eager"):
        settings["TORCH_COMPILE_DISABLE"] = "1"
    # Its native code and its processes write to the descriptors, past Python's logging.
    with divert_output() as written, _set_environment(settings), keep_random_state(), keep_torch_settings():
        from vllm import LLM, envs

        envs.disable_envs_cache()  # a second engine must see the settings made here
        try:
            return LLM(**arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(_describe_refusal(error)) from error
        except RuntimeError as error:
            # The engine's own process has printed what it refused, and this one only knows that it ended.
            if (refused := _ENGINE_ERROR.findall(written())) and "initialization failed" in str(error):
                raise ValueError(_starts_with(refused[-1])) from error
            raise


def _describe_refusal(error: TypeError | ValueError) -> str:
    """Return in one line which argument vLLM refuses, what it must be, and what it was."""
    if isinstance(error, TypeError):
        return f"inference.engine_args must hold arguments of vllm.LLM, got others: {error}"
    if not isinstance(error, ValidationError):
        return _starts_with(str(error))
    # pydantic's own text is a page, with a link for every value.
    found = []
    for refused in error.errors(include_url=False):
        what = refused["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        if refused["loc"]:
            name = ".".join(map(str, refused["loc"]))
            key = {"tensor_parallel_size": "inference.tensor_parallel_size", "dtype": "inference.dtype"}.get(name)
            must_be = what.removeprefix("Input should be ")
            found.append(f"{key or f'inference.engine_args.{name}'} must be {must_be}, got {refused['input']!r}")
        # About several arguments at once: vLLM's first sentence names them and their values.
        else:
            found.append(_starts_with(what.partition(". ")[0]))
    return "; ".join(shorten(sentence, 300) for sentence in found)


def _starts_with(what: str) -> str:
    return f"inference must have settings that vLLM starts with: {shorten(what, 300)}"


@contextlib.contextmanager
def _set_environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set the environment variables that are not set yet, until the block ends."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
