"""A process that trains keeps the memory that a step frees, and gives it back afterwards."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")

# Prints the page faults of filling memory that was freed before, and whether that stays resident, inside and after.
SCRIPT = """
import os
import resource
import torch
from engine.learners import numerics_applied
from engine.benchmarking.resident_memory import resident_bytes
from engine.recipes import Numerics

def fill():
    torch.ones(16 * 2**20)  # 64 MiB

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

with numerics_applied(Numerics()):
    empty = resident_bytes(os.getpid())
    # A block that was freed may be a few bytes too short for another of its size, two of them are not.
    for _ in range(4):
        before = faults()
        fill()
    print(faults() - before)
    print(resident_bytes(os.getpid()) - empty >= 48 * 2**20)
print(resident_bytes(os.getpid()) - empty >= 48 * 2**20)
"""


def run_script(**environment: str) -> list[str]:
    """Return the lines that the script prints, in a process with glibc's own settings but for these."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.run(
        command, env={**own, **environment}, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_what_is_freed_is_used_again_and_given_back_at_the_end() -> None:
    faults, inside, after = run_script()
    assert int(faults) < 64 * 2**20 // 4096 // 10
    assert (inside, after) == ("True", "False")


def test_the_users_own_setting_of_the_allocator_stays() -> None:
    faults, inside, _ = run_script(MALLOC_TRIM_THRESHOLD_=str(2**20))
    assert int(faults) >= 64 * 2**20 // 4096
    assert inside == "False"
