"""Errors of a learner's code, in words."""

from __future__ import annotations

import torch


def explain(error: BaseException) -> str:
    """Return one line on an error, with a remedy where the kind of error tells one."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return f"out of memory ({text}); raise method.num_segments or lower data.batch_size"
    if "InvalidCxxCompiler" in text or "No working C++ compiler" in str(error):
        return "torch.compile found no C++ compiler; install one, or set numerics.compile=false"
    return text
