"""Writes the features that an evaluation compares, and draws what is found by them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from torch import Tensor

from engine.atomic import replacing, write_error
from engine.data import Source
from engine.data.appearances import FURTHER, GALLERY, QUERY, UNKNOWN_CAMERA, unpacked
from engine.tasks import queries_with_match, rankings
from engine.tracking.found_pictures import SHOWN, draw_found, spread

Kept = tuple[Tensor, Tensor]
"""Features, float32 [N, D], and labels, int64 [N], of the N pictures of a split in their order."""

Features = dict[str, Mapping[str, Kept]]
"""By split and network."""

_ROLES = {QUERY: "query", GALLERY: "gallery", QUERY | GALLERY: "query and gallery", FURTHER: "further"}


def write_features(path: Path, features: Features) -> int:
    """Write a row for each picture and network; return their number.

    The columns are ``split``, ``network``, ``position`` (in the split), ``identity`` (-1 for junk), ``camera`` (empty
    where it is not known), ``role`` (query, gallery, both, or further) and ``features``, a list of float32.

    Raises:
        NotWritten: the file cannot be written.
    """
    tables = [
        _table(split, network, *kept) for split, networks in features.items() for network, kept in networks.items()
    ]
    table = pyarrow.concat_tables(tables)
    try:
        with replacing(path) as aside:
            pyarrow.parquet.write_table(table, aside)
    except OSError as error:
        raise write_error(path, error) from error
    return len(table)


def _table(split: str, network: str, features: Tensor, labels: Tensor) -> pyarrow.Table:
    known, (rows, width) = unpacked(labels.numpy()), features.shape
    offsets = pyarrow.array(np.arange(0, (rows + 1) * width, width, dtype=np.int32))
    values = pyarrow.array(features.contiguous().numpy().reshape(-1))
    return pyarrow.table(
        {
            "split": pyarrow.array([split] * rows),
            "network": pyarrow.array([network] * rows),
            "position": pyarrow.array(np.arange(rows)),
            "identity": pyarrow.array(known.identities),
            "camera": pyarrow.array(known.cameras, mask=known.cameras == UNKNOWN_CAMERA),
            "role": pyarrow.array([_ROLES[role] for role in known.roles.tolist()]),
            "features": pyarrow.ListArray.from_arrays(offsets, values),
        }
    )


def draw_queries_of(path: Path, recipe: str, networks: Mapping[str, Kept], source: Source) -> None:
    """Draw some queries of the test split, and the first pictures that the first network finds for them.

    Raises:
        NotWritten: the file cannot be written.
    """
    (name, (features, labels)), *_ = networks.items()
    appearances = unpacked(labels.numpy())
    shown = list(rankings(features, appearances, queries=spread(queries_with_match(appearances))))
    wanted = {place for ranking in shown for place in (ranking.query, *ranking.gallery[:SHOWN].tolist())}
    images: dict[int, np.ndarray] = {}
    first = 0
    for batch in source.evaluation_batches("test"):
        images |= {place: batch.images[place - first] for place in wanted if first <= place < first + len(batch.labels)}
        first += len(batch.labels)
    title = f"{recipe}: what is found" + (f" by {name}" if len(networks) > 1 else "")
    try:
        draw_found(path, title, shown, images)
    except OSError as error:
        raise write_error(path, error) from error
