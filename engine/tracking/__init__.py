"""Tracking of a run: metrics on disk, TensorBoard, the console, figures and tables."""

from __future__ import annotations

from engine.tracking.console import Console, open_console
from engine.tracking.curves import plot_curves
from engine.tracking.metrics import MetricsLog, read_metrics
from engine.tracking.output import spared
from engine.tracking.progress import Preparation
from engine.tracking.records import ENSEMBLE, Record
from engine.tracking.scores import format_score, format_scores
from engine.tracking.tables import (
    format_bytes,
    format_nats,
    format_points,
    format_seconds,
    format_share,
)
from engine.tracking.tensorboard import TensorBoardLog

__all__ = [
    "ENSEMBLE",
    "Console",
    "MetricsLog",
    "Preparation",
    "Record",
    "TensorBoardLog",
    "format_bytes",
    "format_nats",
    "format_points",
    "format_score",
    "format_scores",
    "format_seconds",
    "format_share",
    "open_console",
    "plot_curves",
    "read_metrics",
    "spared",
]
