"""What do the tests of Parquet share: a writer of files with any columns, and how a set of them is opened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from engine.data import Source, open_source
from engine.recipes.data import Data

LABELS = [0, 1, 0, 1, 1, 0]


def open_parquet(root: Path, limit: int = 1 << 30, **fields: Any) -> Source:
    fields = {"batch_size": 2, "image_size": 6} | fields
    return open_source(Data(name="parquet", root=str(root), **fields), seed=5, stored_limit_bytes=limit)


class Table:
    """Writes Parquet files with any columns."""

    def __init__(self, writers: Any) -> None:
        self._writers = writers

    def pictures(self, number: int = 6, seed: int = 0, binary: bool = False) -> pyarrow.Array:
        encoded = [self._writers.png(image) for image in self._writers.images(number, 6, seed)]
        if binary:
            return pyarrow.array(encoded, pyarrow.binary())
        kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        return pyarrow.array([{"bytes": content, "path": None} for content in encoded], kind)

    def write(
        self,
        path: Path,
        columns: dict[str, Any],
        names: Sequence[str] | None = None,
        metadata: bytes | None = None,
        features: dict[str, Any] | None = None,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pyarrow.table(columns)
        if names is not None:
            features = {"label": {"_type": "ClassLabel", "names": list(names)}}
        if features is not None:
            metadata = json.dumps({"info": {"features": features}}).encode()
        if metadata is not None:
            table = table.replace_schema_metadata({b"huggingface": metadata})
        pyarrow.parquet.write_table(table, path)
        return path

    def splits(self, root: Path, columns: dict[str, Any], **more: Any) -> Path:
        for split in ("train", "test"):
            self.write(root / f"{split}.parquet", columns, **more)
        return root
