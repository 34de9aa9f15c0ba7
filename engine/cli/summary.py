"""What does a person want to know at the end of a training?"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from engine.cli.outcome import aligned
from engine.tracking import format_bytes, format_seconds

if TYPE_CHECKING:
    from engine.training import Result


def summary_lines(result: Result) -> list[str]:
    """Return the result in a few aligned lines."""
    folder = shlex.quote(str(result.run_dir))
    rows: list[tuple[str, str]] = [(result.status, f"{result.epochs:,} epochs, {result.steps:,} steps")]
    rows += [
        (name.replace("/", " "), f"{100 * value:.2f} %")
        for name, value in result.metrics.items()
        if name.endswith("accuracy")
    ]
    if result.images_per_second is not None:
        rows.append(("images/s", f"{result.images_per_second:,.0f}"))
    rows += [(f"peak memory of {name}", format_bytes(size)) for name, size in result.peak_memory_bytes.items()]
    rows += [
        ("time", format_seconds(result.seconds)),
        ("run folder", folder),
        ("curves", shlex.quote(str(result.run_dir / "curves.png"))),
        ("TensorBoard", f"tensorboard --logdir {folder}"),
    ]
    return aligned(rows, indent="")
