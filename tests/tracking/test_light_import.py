"""The command line starts fast: tracking does not load what only its sinks need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import engine


def test_importing_tracking_loads_nothing_heavy() -> None:
    heavy = ("torch", "matplotlib", "rich", "pyarrow", "tensorboard", "numpy")
    code = f"import sys, engine.tracking; print([name for name in {heavy} if name in sys.modules])"
    root = Path(engine.__path__[0]).parent
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert answer.stdout.strip() == "[]"
