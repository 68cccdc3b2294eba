"""The vLLM engine of a process: starting and closing it, and the weights it holds.

It outlives the generators that use it: for the next job only the weights change. On a GPU an adapter is served by a
LoRARequest. On a CPU, where vLLM's LoRA path gathers the adapter once per token, and for adapters that vLLM does not
serve, the merged weights are reloaded into the running engine.
"""

import contextlib
import copy
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from causal_lm_router.config import BaseModelConfig
from causal_lm_router.models.base_model import is_adapter, load_trained, local_folder, vllm_serves
from causal_lm_router.models.torch_state import keep_random_state, keep_torch_settings
from causal_lm_router.terminal import divert_output, progress_bar

BASE = "base"
ROOM = ("max_model_len", "max_lora_rank")  # arguments of which an engine may have more than is asked for


class VllmEngine:
    """At most one running engine of vLLM's; `llm` is None where none runs.

    It is closed where anything goes wrong in it, so that neither requests nor weights of an unknown state remain.
    """

    def __init__(self) -> None:
        self.llm: Any = None
        self.on_gpu = torch.cuda.is_available()
        self._user: object = None
        self._arguments: dict[str, Any] = {}
        self._num_threads = 0
        self._weights: str | None = None
        self._lora_request: Any = None
        self._is_asleep = False
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self, arguments: Mapping[str, Any]) -> None:
        """Have an engine running and awake, started with these arguments of `vllm.LLM`, or ones that leave more room.

        Raises ValueError for arguments that vLLM refuses.
        """
        if self.llm is not None and not self._is_enough(arguments):
            self.close()
        if self.llm is None:
            self._arguments, self._num_threads = copy.deepcopy(dict(arguments)), torch.get_num_threads()
            share = {"gpu_memory_utilization": _free_gpu_share()} if self.on_gpu else {}
            self.llm, self._weights = _new_llm(share | self._arguments), BASE
        elif self._is_asleep:
            torch.cuda.empty_cache()  # what the trainer keeps for reuse would be missing here
            with self._closed_on_error():
                self.llm.wake_up()
            self._is_asleep = False

    def _is_enough(self, arguments: Mapping[str, Any]) -> bool:
        wanted, running = dict(arguments), dict(self._arguments)
        for name in ROOM:
            if name in wanted and name in running and running.pop(name) < wanted.pop(name):
                return False
        # The kernels that oneDNN makes are cut for the number of threads at their first use.
        return wanted == running and torch.get_num_threads() == self._num_threads

    def is_held_by(self, user: object) -> bool:
        """True while the running engine holds the weights that this user loaded."""
        return self.llm is not None and self._user is user

    def load_weights(
        self, user: object, name_or_path: str, base_model: BaseModelConfig, weights_dir: Path | None
    ) -> None:
        """Use the trained weights in a folder; None is the bare base model. No earlier cache answers for them.

        Weights that the engine holds already, by the adapter's content, are not loaded again.
        """
        self._user = self._lora_request = None
        with self._closed_on_error():
            if weights_dir is None or self._serves(weights_dir):
                if self._weights != BASE:
                    self._reload(local_folder(name_or_path, base_model), BASE)
                if weights_dir is not None:
                    self._lora_request = self._request(weights_dir)
            elif not is_adapter(weights_dir):
                self._reload(weights_dir, None)
            elif (content := adapter_content(weights_dir)) != self._weights:
                merged = self._empty_folder() / "merged"
                load_trained(name_or_path, base_model, weights_dir).save_pretrained(merged)
                self._reload(merged, content)
                shutil.rmtree(merged)
            # Also where the same weights stay: a job's figures must not depend on what was cached before it.
            is_reset = self.llm.reset_prefix_cache()
            assert is_reset, "vLLM kept its prefix cache, which belongs to the weights before"
        self._user = user

    def generate(
        self, requests: Sequence[dict[str, Any]], sampling: Sequence[Any], unit: str = "queries", per_unit: int = 1
    ) -> list[Any]:
        """Return vLLM's output for every request, in order. The process's random state stays as it is.

        The progress bar counts `unit`, each made of `per_unit` requests.
        """
        bar = partial(_show_bar, unit, per_unit)
        with self._closed_on_error(), keep_random_state(), self._compiler_kept_out():
            outputs: list[Any] = self.llm.generate(requests, sampling, lora_request=self._lora_request, use_tqdm=bar)
        return outputs

    def sleep(self) -> None:
        """On a GPU, move the weights to the host and drop the cache until the next use; on a CPU do nothing."""
        if self.llm is not None and self.on_gpu:
            with self._closed_on_error():
                self.llm.sleep(level=1)
            self._is_asleep = True

    def close(self) -> None:
        """Shut the engine down and remove its temporary folder; it may be started again."""
        llm, self.llm = self.llm, None
        self._user = self._weights = self._lora_request = None
        self._is_asleep = False
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _compiler_kept_out(self) -> contextlib.AbstractContextManager[object]:
        """Where the engine is eager, keep its sampler from compiling one small function: that takes seconds and g++."""
        is_eager = self.llm.llm_engine.model_config.enforce_eager
        return torch.compiler.set_stance("force_eager") if is_eager else contextlib.nullcontext()

    def _serves(self, weights_dir: Path) -> bool:
        takes_lora = self.llm.llm_engine.vllm_config.lora_config is not None
        return self.on_gpu and takes_lora and is_adapter(weights_dir) and vllm_serves(weights_dir)

    def _reload(self, checkpoint: Path, content: str | None) -> None:
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(checkpoint)})
        self.llm.collective_rpc("refresh_tied_head")
        self._weights = content

    def _request(self, adapter_dir: Path) -> Any:
        """Return a LoRARequest whose name, path and id all follow from the adapter's content.

        vLLM looks adapters up by these: under a used id or path it would go on serving the old weights.
        """
        from vllm.lora.request import LoRARequest

        content = adapter_content(adapter_dir)
        served = self._empty_folder() / content
        shutil.copytree(adapter_dir, served)
        return LoRARequest(content, int(content[:7], 16) + 1, str(served))

    def _empty_folder(self) -> Path:
        """Return the engine's temporary folder, without the adapter that was served before."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="causal-lm-router-")
        folder = Path(self._folder.name)
        for earlier in folder.iterdir():
            shutil.rmtree(earlier)
        return folder


def _show_bar(unit: str, per_unit: int, items: Any = None, total: int | None = None, **_described: Any) -> Any:
    """Return what vLLM takes in place of its own bars: the first is around the prompts, the second counts requests."""
    return items if items is not None else progress_bar(unit=unit, total=total, per_unit=per_unit)


def adapter_content(adapter_dir: Path) -> str:
    """Return a hash of an adapter's weights and settings."""
    content = hashlib.sha256()
    for file in sorted(adapter_dir.glob("adapter_*")):
        content.update(file.read_bytes())
    return content.hexdigest()


def _free_gpu_share() -> float:
    """Return the share of the GPU's memory that the engine may take: nine tenths of what a trainer beside it leaves."""
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return 0.9 * free / total


def _new_llm(arguments: dict[str, Any]) -> Any:
    """Return a new vLLM engine on all cores; vLLM's own environment variables win where they are set.

    It runs in this process, but in one of its own beside a process group (that of a distributed trainer, or of another
    engine): it would join the group, wait for the other ranks, and destroy the group at its end. Its start leaves the
    random state and torch's settings as they were, so that training does not depend on when it starts.
    """
    in_own_process = torch.distributed.is_available() and torch.distributed.is_initialized()
    settings = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(in_own_process)),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # by default it leaves one core out
        "VLLM_CONFIGURE_LOGGING": "0",  # its records go where the command's own logging has them
        "VLLM_NO_USAGE_STATS": "1",
    }
    if in_own_process and arguments.get("enforce_eager"):
        settings["TORCH_COMPILE_DISABLE"] = "1"
    # Its native code and its processes write to the descriptors, past Python's logging.
    with divert_output(), _environment(settings), keep_random_state(), keep_torch_settings():
        from vllm import LLM, envs

        envs.disable_envs_cache()
        try:
            return LLM(**arguments)
        except TypeError as error:
            raise ValueError(f"inference.engine_args: {error}") from error
        except ValueError as error:
            raise ValueError(f"inference: vLLM does not start: {error}") from error


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set the environment variables that are not set yet, for the length of the block."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
