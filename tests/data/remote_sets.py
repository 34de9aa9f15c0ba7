"""What do the tests of sets under a URI share: a store of objects in memory, and what lies in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.fs

from engine.data import cache_root


def silent(text: str, share: float) -> None:
    """Show no progress."""


def copies() -> list[Path]:
    return sorted((cache_root() / "remote").glob("*"))


def leftovers() -> list[Path]:
    return sorted((cache_root() / "remote").glob(".*"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class MemoryStore(pyarrow.fs.FileSystemHandler):
    """What object stores are like: names and bytes, no folders, no times; a read may fail."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.failing: str | None = None
        self.reads = 0

    def get_type_name(self) -> str:
        return "memory"

    def get_file_info(self, paths: list[str]) -> list[pyarrow.fs.FileInfo]:
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> pyarrow.fs.FileInfo:
        if path in self.objects:
            return pyarrow.fs.FileInfo(path, pyarrow.fs.FileType.File, size=len(self.objects[path]))
        kind = pyarrow.fs.FileType
        below = any(name.startswith(f"{path}/") for name in self.objects)
        return pyarrow.fs.FileInfo(path, kind.Directory if below else kind.NotFound)

    def get_file_info_selector(self, selector: pyarrow.fs.FileSelector) -> list[pyarrow.fs.FileInfo]:
        return [self._info(name) for name in self.objects if name.startswith(f"{selector.base_dir}/")]

    def open_input_stream(self, path: str) -> pyarrow.NativeFile:
        self.reads += 1
        if path == self.failing:
            raise OSError("connection reset by peer")
        return pyarrow.BufferReader(self.objects[path])

    open_input_file = open_input_stream

    def _refuse(self, *arguments: Any) -> None:
        raise NotImplementedError

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = _refuse
    move = copy_file = open_output_stream = open_append_stream = normalize_path = _refuse
