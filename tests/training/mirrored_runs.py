"""Runs with a mirror, what is in it, and a bucket that one may be at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.fs

import engine
from engine.recipes import Recipe

# 8 steps, 4 in an epoch; checkpoints after every second one.
PLAN = engine.Plan(executor="process", report_every_steps=1, checkpoint_every_steps=2)


class Bucket(pyarrow.fs.FileSystemHandler):
    """An object store: no folders, no renames, and an object is there when all of it has arrived.

    `fail` is called with what is about to be done and to which name, and may raise.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.done: list[tuple[str, str]] = []
        self.fail: Callable[[str, str], None] = lambda what, name: None

    def _do(self, what: str, name: str) -> None:
        self.fail(what, name)
        self.done.append((what, name))

    def get_type_name(self) -> str:
        return "bucket"

    def get_file_info(self, paths: list[str]) -> list[pyarrow.fs.FileInfo]:
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> pyarrow.fs.FileInfo:
        kind = pyarrow.fs.FileType
        if path in self.objects:
            return pyarrow.fs.FileInfo(path, kind.File, size=len(self.objects[path]))
        below = any(name.startswith(f"{path}/") for name in self.objects)
        return pyarrow.fs.FileInfo(path, kind.Directory if below else kind.NotFound)

    def get_file_info_selector(self, selector: pyarrow.fs.FileSelector) -> list[pyarrow.fs.FileInfo]:
        self._do("list", selector.base_dir)
        prefix = f"{selector.base_dir}/"
        names = [name.removeprefix(prefix) for name in self.objects if name.startswith(prefix)]
        if not selector.recursive:
            names = list(dict.fromkeys(name.partition("/")[0] for name in names))
        return [self._info(prefix + name) for name in names]

    def open_input_stream(self, path: str) -> pyarrow.NativeFile:
        self._do("read", path)
        return pyarrow.BufferReader(self.objects[path])

    def open_output_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:
        self._do("write", path)
        bucket = self

        class Upload:
            closed = False

            def __init__(self) -> None:
                self.parts: list[bytes] = []

            def write(self, part: bytes) -> None:
                self.parts.append(bytes(part))

            def writable(self) -> bool:
                return True

            def flush(self) -> None:
                """Nothing is visible yet."""

            def close(self) -> None:
                if not self.closed:
                    bucket.objects[path] = b"".join(self.parts)
                self.closed = True

        return pyarrow.PythonFile(Upload(), mode="w")

    def copy_file(self, source: str, target: str) -> None:
        self._do("copy", target)
        self.objects[target] = self.objects[source]

    def delete_file(self, path: str) -> None:
        self._do("delete", path)
        del self.objects[path]

    def delete_dir(self, path: str) -> None:
        self._do("delete", path)
        below = [name for name in self.objects if name.startswith(f"{path}/")]
        if not below:
            raise FileNotFoundError(path)
        for name in below:
            del self.objects[name]

    def _refuse(self, *arguments: Any) -> None:
        raise NotImplementedError

    open_input_file = open_append_stream = create_dir = move = normalize_path = _refuse
    delete_dir_contents = delete_root_dir_contents = _refuse

    def written(self) -> list[str]:
        return [name.removeprefix("bucket/run/") for what, name in self.done if what == "write"]

    def checkpoints(self) -> set[str]:
        return {name.split("/")[3] for name in self.objects if name.startswith("bucket/run/checkpoints/")}


def mirrored(address: str, **changes: Any) -> engine.Plan:
    return dataclasses.replace(PLAN, mirror=address, **changes)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def held(bucket: Bucket) -> dict[str, bytes]:
    return {name.removeprefix("bucket/run/"): content for name, content in bucket.objects.items()}


class Told:
    """A console that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **named: None


def train(recipe: Recipe, plan: engine.Plan, folder: Path, told: Told | None = None, **options: Any) -> engine.Result:
    return engine.train(recipe, plan, folder, console=told, **options)  # type: ignore[arg-type]
