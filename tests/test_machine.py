"""Is a container's limit of memory kept, and is what the files that it has read take in memory free?"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from engine import machine
from engine.machine import Room, main_memory

UNLIMITED = 2**63 - 4096


@pytest.fixture(autouse=True)
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder that stands for the control groups of a machine with 64 bytes, 40 of them available."""
    monkeypatch.setattr(machine, "_CONTROL_GROUPS", str(tmp_path))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64, available=40))
    return tmp_path


def write(folder: Path, version: int, limit: object, used: int, cached: int) -> None:
    places = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    folder = folder if version == 2 else folder / "memory"
    folder.mkdir(exist_ok=True)
    for place, value in zip(places, (limit, used), strict=True):
        (folder / place).write_text(f"{value}\n")
    lines = f"inactive_file {cached}" if version == 2 else f"inactive_file 1\ntotal_inactive_file {cached}"
    (folder / "memory.stat").write_text(f"anon 7\n{lines}\nactive_file 2\n")


@pytest.mark.parametrize("version", [2, 1])
@pytest.mark.parametrize(
    ("limit", "used", "cached", "free"), [(32, 30, 20, 22), (32, 30, 0, 2), (60, 30, 25, 40), (32, 34, 1, 0)]
)
def test_files_in_memory_are_free(groups: Path, version: int, limit: int, used: int, cached: int, free: int) -> None:
    write(groups, version, limit, used, cached)
    assert main_memory() == Room(limit, free)


@pytest.mark.parametrize(("version", "limit"), [(2, "max"), (1, UNLIMITED)])
def test_no_limit_is_that_of_the_machine(groups: Path, version: int, limit: object) -> None:
    assert main_memory() == Room(64, 40)
    write(groups, version, limit, 30, 20)
    assert main_memory() == Room(64, 40)
