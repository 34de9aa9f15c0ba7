"""Images in, batches out: formats, one cache of decoded images, batches by (seed, epoch, step), augmentation."""

from __future__ import annotations

from engine.data.augmentation import Augmenter
from engine.data.batches import Batch, Source, open_source
from engine.data.cache import cache_root
from engine.data.facts import Facts
from engine.data.inventory import Inventory
from engine.data.labels import NO_LABEL
from engine.data.placing import on_device

__all__ = [
    "NO_LABEL",
    "Augmenter",
    "Batch",
    "Facts",
    "Inventory",
    "Source",
    "cache_root",
    "on_device",
    "open_source",
]
