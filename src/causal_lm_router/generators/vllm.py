"""Generation with vLLM: one engine for the life of a process, trained weights switched while it runs.

On a GPU an adapter is served by a LoRARequest. On a CPU, where vLLM's LoRA path gathers the adapter once per token, and
for adapters that vLLM does not serve, the merged weights are reloaded into the running engine.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from transformers import PreTrainedTokenizerBase

from causal_lm_router.base_model import is_adapter, local_folder, merge_adapter, vllm_serves
from causal_lm_router.config import BaseModelConfig, InferenceConfig, LoraConfig
from causal_lm_router.routing import Generation

CPU_CACHE_BYTES = 1 << 30
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # those vLLM lays memory out for


class VllmGenerator:
    """The vLLM backend. The engine starts at the first use; starting takes seconds to a minute."""

    def __init__(
        self,
        inference: InferenceConfig,
        base_model: BaseModelConfig,
        lora: LoraConfig,
        name_or_path: str,
        tokenizer: PreTrainedTokenizerBase,
        max_prompt_tokens: int,
    ) -> None:
        self._inference = inference
        self._lora = lora
        self._base_model = base_model
        self._name_or_path = name_or_path
        self._tokenizer = tokenizer
        self._max_model_len = max_prompt_tokens + inference.max_new_tokens
        self._on_gpu = torch.cuda.is_available()
        self._folder = tempfile.TemporaryDirectory(prefix="causal-lm-router-")
        self._engine: Any = None
        self._lora_request: Any = None
        self._holds_base = True
        self._is_asleep = False

    def load_weights(self, weights_dir: Path | None) -> None:
        """Use the trained weights in a folder; None is the bare base model."""
        self._start()
        self._lora_request = None
        if weights_dir is None:
            self._reload_base()
        elif self._serves(weights_dir):
            self._reload_base()
            self._lora_request = self._request(weights_dir)
        elif is_adapter(weights_dir):
            with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
                merged = Path(folder) / "merged"
                merge_adapter(self._name_or_path, self._base_model, weights_dir, merged)
                self._reload(merged)
        else:
            self._reload(weights_dir)

    def generate(self, prompts: Sequence[Sequence[int]]) -> list[Generation]:
        """Return one generation per prompt (token ids), in order."""
        self._start()
        requests = [{"prompt_token_ids": list(ids)} for ids in prompts]
        sampling = [self._sampling_params(index) for index in range(len(prompts))]
        use_tqdm = len(prompts) > 50
        with isolate_rng(), self._compiler_kept_out():
            outputs = self._engine.generate(requests, sampling, lora_request=self._lora_request, use_tqdm=use_tqdm)
        return [self._generation(output.outputs[0]) for output in outputs]

    def sleep(self) -> None:
        """On a GPU, move the weights to the host and drop the cache until the next use; on a CPU do nothing."""
        if self._engine is not None and self._on_gpu:
            self._engine.sleep(level=1)
            self._is_asleep = True

    def close(self) -> None:
        """Shut the engine down and remove the temporary folder."""
        if self._engine is not None:
            self._engine.llm_engine.engine_core.shutdown()
            self._engine = None
        self._folder.cleanup()

    def _start(self) -> None:
        if self._engine is None:
            self._engine = _new_engine(self._engine_args())
        elif self._is_asleep:
            torch.cuda.empty_cache()  # what the trainer keeps for reuse would be missing here
            self._engine.wake_up()
            self._is_asleep = False

    def _engine_args(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": self._name_or_path,
            "revision": self._base_model.revision,
            "trust_remote_code": self._base_model.trust_remote_code,
            "dtype": self._base_model.dtype,
            "tensor_parallel_size": self._inference.tensor_parallel_size,
            "max_model_len": self._max_model_len,
            "enable_prefix_caching": True,
            "seed": self._inference.seed,
            "use_tqdm_on_load": False,
        }
        if self._on_gpu:
            arguments |= {"enable_sleep_mode": True, "gpu_memory_utilization": _free_gpu_share()}
            ranks = [rank for rank in LORA_RANKS if rank >= self._lora.lora_r]
            if self._lora.use_lora and not self._lora.use_dora and ranks:
                arguments |= {"enable_lora": True, "max_lora_rank": ranks[0]}
        else:
            # A block of 32 tokens lets the prompt's fixed part be cached; the default of 128 is longer than most.
            arguments |= {"block_size": 32, "kv_cache_memory_bytes": CPU_CACHE_BYTES, "enforce_eager": True}
        return arguments | self._inference.engine_args

    def _sampling_params(self, index: int) -> Any:
        from vllm import SamplingParams

        arguments: dict[str, Any] = {
            "temperature": self._inference.temperature,
            "top_p": self._inference.top_p,
            "seed": self._inference.seed + index,
            "max_tokens": self._inference.max_new_tokens,
            # Only the end token that was trained ends a generation; a base model's own list may hold others.
            "ignore_eos": True,
            "stop_token_ids": [self._tokenizer.eos_token_id],
            "logprobs": 0,
            "detokenize": False,
        }
        try:
            return SamplingParams(**(arguments | self._inference.sampling_args))
        except (TypeError, ValueError) as error:
            raise ValueError(f"inference.sampling_args: {error}") from error

    def _compiler_kept_out(self) -> contextlib.AbstractContextManager[object]:
        """Where the engine is eager, keep its sampler from compiling one small function: that takes seconds and g++."""
        is_eager = self._engine.llm_engine.model_config.enforce_eager
        return torch.compiler.set_stance("force_eager") if is_eager else contextlib.nullcontext()

    def _generation(self, output: Any) -> Generation:
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        text = self._tokenizer.decode(output.token_ids, **options)
        return Generation(str(text), output.finish_reason, len(output.token_ids), output.cumulative_logprob)

    def _request(self, adapter_dir: Path) -> Any:
        """Return a LoRARequest whose name, path and id all follow from the adapter's content.

        vLLM looks adapters up by these: under a used id or path it would go on serving the old weights.
        """
        from vllm.lora.request import LoRARequest

        content = hashlib.sha256()
        for file in sorted(adapter_dir.glob("adapter_*")):
            content.update(file.read_bytes())
        digest = content.hexdigest()
        copy = Path(self._folder.name) / digest
        if not copy.is_dir():
            shutil.copytree(adapter_dir, copy)
        return LoRARequest(digest, int(digest[:7], 16) + 1, str(copy))

    def _serves(self, weights_dir: Path) -> bool:
        takes_lora = self._engine.llm_engine.vllm_config.lora_config is not None
        return self._on_gpu and takes_lora and is_adapter(weights_dir) and vllm_serves(weights_dir)

    def _reload_base(self) -> None:
        if not self._holds_base:
            self._reload(local_folder(self._name_or_path, self._base_model))
            self._holds_base = True

    def _reload(self, checkpoint: Path) -> None:
        self._holds_base = False
        self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(checkpoint)})
        is_reset = self._engine.reset_prefix_cache()
        assert is_reset, "vLLM kept its prefix cache, which belongs to the weights before"


def _free_gpu_share() -> float:
    """Return the share of the GPU's memory that the engine may take: nine tenths of what a trainer beside it leaves."""
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return 0.9 * free / total


def _new_engine(arguments: dict[str, Any]) -> Any:
    """Return a new vLLM engine on all cores; vLLM's own environment variables win where they are set.

    It runs in this process, but in one of its own beside a process group (that of a distributed trainer, or of another
    engine): it would join the group, wait for the other ranks, and destroy the group at its end.
    """
    in_own_process = torch.distributed.is_available() and torch.distributed.is_initialized()
    settings = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(in_own_process)),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # by default it leaves one core out
        "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings are about choices made here
        "VLLM_NO_USAGE_STATS": "1",
    }
    if in_own_process and arguments.get("enforce_eager"):
        settings["TORCH_COMPILE_DISABLE"] = "1"
    with _environment(settings), _process_state_kept():
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


@contextlib.contextmanager
def _process_state_kept() -> Iterator[None]:
    """Undo what starting an engine does to this process, so that training does not depend on when it starts.

    vLLM seeds every random generator, sets the precision of float32 products, and on a CPU makes
    `torch.set_num_threads` do nothing.
    """
    set_num_threads, num_threads = torch.set_num_threads, torch.get_num_threads()
    precision = torch.get_float32_matmul_precision()
    with isolate_rng():
        try:
            yield
        finally:
            torch.set_num_threads = set_num_threads
            torch.set_num_threads(num_threads)
            torch.set_float32_matmul_precision(precision)
