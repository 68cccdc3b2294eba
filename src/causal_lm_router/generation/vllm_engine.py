"""The vLLM engine of a process: its start and end, and the weights that it holds.

It outlives the generators that use it, so the next job only changes the weights. On a GPU an adapter is served by a
LoRARequest. On a CPU, where vLLM's LoRA path gathers the adapter once per token (6 times slower), and for adapters that
vLLM cannot serve, the merged weights are reloaded into the running engine.
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
from causal_lm_router.files.checksums import check_files
from causal_lm_router.files.writing import temporary_folder
from causal_lm_router.generation.vllm_start import free_gpu_share, new_llm
from causal_lm_router.models.adapter import is_adapter, load_trained, vllm_serves
from causal_lm_router.models.hub import local_folder
from causal_lm_router.models.torch_state import keep_random_state
from causal_lm_router.terminal import progress_bar

BASE = "base"
"""Name of the base model's own weights, where an adapter's are named by a hash of their content."""
ROOM = ("max_model_len", "max_lora_rank")
"""Sizes of an engine: one that runs with a larger size than a job asks for can serve the job."""


class VllmEngine:
    """At most one running vLLM engine; `llm` is None if none runs.

    It is closed after any error, so that neither requests nor weights in an unknown state remain.
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
        self._folder: Path | None = None
        self._cleanup = contextlib.ExitStack()

    def start(self, arguments: Mapping[str, Any]) -> None:
        """Start an engine with these arguments of `vllm.LLM`, or wake the running one if its arguments are enough.

        Raises:
            ValueError: vLLM refuses the arguments.
        """
        if self.llm is not None and not self._is_enough(arguments):
            self.close()
        if self.llm is None:
            # A copy, since later calls are compared with these arguments.
            self._arguments, self._num_threads = copy.deepcopy(dict(arguments)), torch.get_num_threads()
            share = {"gpu_memory_utilization": free_gpu_share()} if self.on_gpu else {}
            # vLLM's file by which its processes find one another stays after a kill: here it goes with the engine's.
            # On a GPU compiled kernels come to the same place, which later engines find again.
            place = contextlib.nullcontext() if self.on_gpu else _temporary_files_in(self._temporary_folder())
            with place:
                self.llm, self._weights = new_llm(share | self._arguments), BASE
            if not self.on_gpu:
                self.llm.collective_rpc("rewind_generators")  # see `vllm_worker`
        elif self._is_asleep:
            torch.cuda.empty_cache()  # memory that the trainer keeps for reuse would be missing here
            with self._close_on_error():
                self.llm.wake_up()
            self._is_asleep = False

    def _is_enough(self, arguments: Mapping[str, Any]) -> bool:
        # Arguments with room to spare drop out of the comparison; all others must be equal.
        wanted, running = dict(arguments), dict(self._arguments)
        for name in ROOM:
            if name in wanted and name in running and running.pop(name) < wanted.pop(name):
                return False
        # oneDNN builds its kernels for the number of threads at their first use.
        return wanted == running and torch.get_num_threads() == self._num_threads

    def is_held_by(self, user: object) -> bool:
        """Return whether the running engine holds the weights that this user loaded."""
        return self.llm is not None and self._user is user

    def load_weights(
        self, user: object, name_or_path: str, base_model: BaseModelConfig, weights_dir: Path | None
    ) -> None:
        """Use the trained weights in a folder; None is the bare base model. The prefix cache is always reset.

        Weights that the engine already holds, by the adapter's content, are not loaded again.
        """
        if weights_dir is not None:
            check_files(weights_dir)
        # Nobody's until all is done: an error in between must not leave weights that a user takes for its own.
        self._user = self._lora_request = None
        with self._close_on_error():
            # 1. The base model, alone or with an adapter that vLLM serves on top of it.
            if weights_dir is None or self._serves(weights_dir):
                if self._weights != BASE:
                    self._reload(local_folder(name_or_path, base_model), BASE)
                if weights_dir is not None:
                    self._lora_request = self._request(weights_dir)
            # 2. A full checkpoint. It has no name, so it is loaded anew each time.
            elif not is_adapter(weights_dir):
                self._reload(weights_dir, None)
            # 3. An adapter to merge: the merged checkpoint is read into the engine and deleted.
            elif (content := hash_adapter(weights_dir)) != self._weights:
                merged = self._empty_folder() / "merged"
                load_trained(name_or_path, base_model, weights_dir).save_pretrained(merged)
                self._reload(merged, content)
                shutil.rmtree(merged)
            # Even if the weights stay the same: results of a job must not depend on what an earlier one cached.
            is_reset = self.llm.reset_prefix_cache()
            assert is_reset, "vLLM kept its prefix cache, which belongs to the weights before"
        self._user = user

    def generate(self, requests: Sequence[dict[str, Any]], sampling: Sequence[Any], unit: str = "queries") -> list[Any]:
        """Return vLLM's output for every request, in order; the random state of the process stays as it is.

        The progress bar counts requests as `unit`.
        """
        # A bar that is not shown measures no time, and vLLM would divide by it.
        bar = partial(_show_bar, unit) if not progress_bar(unit=unit).disable else False
        with self._close_on_error(), keep_random_state(), self._avoid_compiler():
            outputs: list[Any] = self.llm.generate(requests, sampling, lora_request=self._lora_request, use_tqdm=bar)
        return outputs

    def can_pack(self) -> bool:
        """Return whether `target_logprobs` can be used: on one CPU, for a model with plain attention."""
        if self.on_gpu or self._arguments["tensor_parallel_size"] > 1:
            return False
        return bool(self.llm.collective_rpc("can_pack")[0])

    def target_logprobs(
        self, prompts: Sequence[Sequence[int]], sequences: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Return the log-probability (nats) of every sequence after each prompt, by one pass over all of them."""
        lists = [list(ids) for ids in prompts], [list(ids) for ids in sequences]
        with self._close_on_error(), keep_random_state(), self._avoid_compiler():
            found: list[list[float]] = self.llm.collective_rpc("target_logprobs", args=lists)[0]
        return found

    def sleep(self) -> None:
        """On a GPU, move the weights to the host and drop the cache until the next use; do nothing on a CPU."""
        if self.llm is not None and self.on_gpu:
            with self._close_on_error():
                self.llm.sleep(level=1)
            self._is_asleep = True

    def close(self) -> None:
        """Shut the engine down and remove its temporary folder; it can be started again."""
        # The state is cleared first: a shutdown that fails must not leave an engine that looks alive.
        llm, self.llm = self.llm, None
        self._user = self._weights = self._lora_request = None
        self._is_asleep = False
        self._folder = None
        with self._cleanup:
            if llm is not None:
                llm.llm_engine.engine_core.shutdown()

    @contextlib.contextmanager
    def _close_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # an interrupt too: it leaves requests in the engine
            self.close()
            raise

    def _avoid_compiler(self) -> contextlib.AbstractContextManager[object]:
        """Keep the sampler of an eager engine from compiling one small function, which takes seconds and needs g++."""
        is_eager = self.llm.llm_engine.model_config.enforce_eager
        return torch.compiler.set_stance("force_eager") if is_eager else contextlib.nullcontext()

    def _serves(self, weights_dir: Path) -> bool:
        takes_lora = self.llm.llm_engine.vllm_config.lora_config is not None
        return self.on_gpu and takes_lora and is_adapter(weights_dir) and vllm_serves(weights_dir)

    def _reload(self, checkpoint: Path, content: str | None) -> None:
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(checkpoint)})
        self.llm.collective_rpc("refresh_tied_head")  # see `vllm_worker`
        self._weights = content

    def _request(self, adapter_dir: Path) -> Any:
        """Return a LoRARequest whose name, path and id all follow from the adapter's content.

        vLLM finds adapters by these: for an id or path that it knows, it would keep serving the old weights.
        """
        from vllm.lora.request import LoRARequest

        content = hash_adapter(adapter_dir)
        served = self._empty_folder() / content
        shutil.copytree(adapter_dir, served)
        # An id is a positive 32-bit integer: 28 bits of the hash, and 1 since 0 means no adapter.
        return LoRARequest(content, int(content[:7], 16) + 1, str(served))

    def _temporary_folder(self) -> Path:
        """Return the engine's temporary folder, which goes when the engine is closed."""
        if self._folder is None:
            self._folder = self._cleanup.enter_context(temporary_folder())
        return self._folder

    def _empty_folder(self) -> Path:
        """Return an empty folder for weights: adapters of a whole sweep would fill the disk."""
        folder = self._temporary_folder() / "weights"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Have this process, and those that it starts, make temporary files in a folder until the block ends."""
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
        os.environ.pop("TMPDIR")
        if variable is not None:
            os.environ["TMPDIR"] = variable


def _show_bar(unit: str, items: Any = None, total: int | None = None, **_described: Any) -> Any:
    """Return what vLLM takes in place of its own bars: the first is around the prompts, the second counts requests."""
    return items if items is not None else progress_bar(unit=unit, total=total)


def hash_adapter(adapter_dir: Path) -> str:
    """Return a hash of an adapter's weights and settings."""
    content = hashlib.sha256()
    for file in sorted(adapter_dir.glob("adapter_*")):
        content.update(file.read_bytes())
    return content.hexdigest()
