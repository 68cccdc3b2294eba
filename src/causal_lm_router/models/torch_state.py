"""State of the whole process that results depend on, put back after a piece of work."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pytorch_lightning.utilities.seed import isolate_rng


@contextmanager
def keep_random_state(*, include_cuda: bool = True) -> Iterator[None]:
    """Put the random generators of Python, NumPy and torch back at the end of the block, also where it raises.

    `include_cuda=False` leaves those of GPUs alone, and so starts none.
    """
    isolation = isolate_rng(include_cuda)
    isolation.__enter__()
    try:
        yield
    finally:
        isolation.__exit__(None, None, None)  # told of an exception it would not put them back


@contextmanager
def keep_torch_settings() -> Iterator[None]:
    """Put torch's settings back at the end of the block: threads, precision of float32 products, choice of algorithms.

    vLLM on a CPU also makes `torch.set_num_threads` do nothing; that is undone too.
    """
    set_num_threads, num_threads = torch.set_num_threads, torch.get_num_threads()
    precision = torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.set_num_threads = set_num_threads
        torch.set_num_threads(num_threads)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
