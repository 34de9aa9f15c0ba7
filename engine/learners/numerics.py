"""Puts torch into the state that a recipe's numerics ask for, and says on which device a learner computes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.utils.deterministic

from engine.errors import PlanError
from engine.learners.allocator import give_back_freed_memory, keep_freed_memory
from engine.recipes import Numerics

# Every network that is compiled counts for torch as another version of the one function that calls a module; from
# its own limit of 8 on, which four segments reach, the rest would be run as they are written.
_COMPILED_VERSIONS = 256

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@contextlib.contextmanager
def numerics_applied(numerics: Numerics) -> Iterator[None]:
    """Set threads and determinism for a block, and put back what was there before.

    On a GPU an operation without a deterministic version warns instead of failing: adaptive pooling to more than
    one cell, which DGL's head needs, has none.

    Freed main memory is kept inside the block, and given back at its end; that the process goes on keeping what it
    frees later cannot be put back.
    """
    keep_freed_memory()
    # cuBLAS reads this once, when its first handle is made.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads = torch.get_num_threads()
    before = torch.get_deterministic_debug_mode()
    benchmark = torch.backends.cudnn.benchmark
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.set_num_threads(numerics.threads)
    # Not use_deterministic_algorithms, which loads torch's compiler to tell it, too: seconds, and 150 MB.
    strictest = "warn" if torch.cuda.is_available() else "error"
    torch.set_deterministic_debug_mode(strictest if numerics.deterministic else "default")
    torch.backends.cudnn.benchmark = not numerics.deterministic
    # Filling what will be overwritten shows mistakes in kernels; it costs time and changes no result.
    memory.fill_uninitialized_memory = False
    try:
        with _compiling(numerics.deterministic) if numerics.compile else contextlib.nullcontext():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(before)
        torch.backends.cudnn.benchmark = benchmark
        memory.fill_uninitialized_memory = filled
        give_back_freed_memory()


@contextlib.contextmanager
def _compiling(deterministic: bool) -> Iterator[None]:
    # Only here, because they take seconds to import.
    import torch._dynamo.config
    import torch._inductor.config

    versions: Any = torch._dynamo.config
    kernels: Any = torch._inductor.config
    with (
        versions.patch(recompile_limit=_COMPILED_VERSIONS, accumulated_recompile_limit=4 * _COMPILED_VERSIONS),
        kernels.patch(deterministic=deterministic),
    ):
        yield


def choose_device(numerics: Numerics, gpus_are_planned: bool) -> torch.device:
    """Return the device of a learner in this process.

    Raises:
        PlanError: the recipe asks for a GPU and there is none, or for float16 on a CPU.
    """
    if numerics.device == "cuda" and not torch.cuda.is_available():
        raise PlanError(
            "numerics.device=cuda, but torch finds no GPU in the learner's process; set numerics.device=cpu, "
            "or run `local-learning doctor` to see what is missing"
        )
    wanted = numerics.device == "cuda" or (numerics.device == "auto" and gpus_are_planned)
    device = torch.device("cuda" if wanted and torch.cuda.is_available() else "cpu")
    if numerics.precision == "float16" and device.type == "cpu":
        raise PlanError("numerics.precision=float16 needs a GPU; set numerics.precision=bfloat16 for a CPU")
    return device
