"""Is what a user may not read named, with exit code 2, and is nothing left behind?

Root may read everything, so as root the commands run without the capabilities by which it may.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

_RUN = """
import contextlib, io, json, sys
from engine.cli.main import main
found = []
for words in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(words)
    found.append([code, said.getvalue()])
print(json.dumps(found))
"""
_WITHOUT = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
_FIELDS = "data.name=folder data.image_size=8 data.batch_size=4 epochs=1 --on process --run-dir {root}/run"


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Paths that may not be read, by what they are."""
    for split, name, number in itertools.product(("train", "test"), ("cat", "dog"), range(4)):
        path = tmp_path / "set" / split / name / f"{name}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    shutil.copytree(tmp_path / "set", tmp_path / "closed_set")
    shutil.copytree(tmp_path / "set", tmp_path / "closed_class")
    shutil.copytree(tmp_path / "set", tmp_path / "half_closed")
    for name in ("recipe.json", "mine.py", "weights.pt"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "kept").mkdir()
    shut = {
        "closed_set": 0o000,
        "half_closed": 0o600,
        "closed_class/train/cat": 0o000,
        "set/train/cat/cat_0.png": 0o000,
        "recipe.json": 0o000,
        "mine.py": 0o000,
        "weights.pt": 0o000,
        "kept": 0o000,
    }
    for name, mode in shut.items():
        (tmp_path / name).chmod(mode)
    yield {name: str(tmp_path / name) for name in shut}
    for name in shut:
        (tmp_path / name).chmod(0o700)


@pytest.mark.slow
def test_what_may_not_be_read_is_named(closed: dict[str, str], tmp_path: Path) -> None:
    if os.geteuid() == 0 and shutil.which(_WITHOUT[0]) is None:
        pytest.skip("root may read everything, and there is no setpriv to forbid it")
    fields = _FIELDS.format(root=tmp_path)
    commands = {
        f"train greedy_digits data.root={tmp_path}/closed_set {fields}": "closed_set",
        f"train greedy_digits data.root={tmp_path}/closed_class {fields}": "closed_class/train/cat",
        f"train greedy_digits data.root={tmp_path}/set {fields}": "set/train/cat/cat_0.png",
        f"train {closed['recipe.json']} --on process": "recipe.json",
        f"train {closed['mine.py']} --on process": "mine.py",
        f"train greedy_digits backbone.weights={closed['weights.pt']} --on process": "weights.pt",
        f"train greedy_digits --on process --run-dir {closed['kept']}/one": "kept",
        f"train greedy_digits backbone.weights={closed['kept']}/a.pt --on process": "kept",
        f"train mkf_digits method.knowledge_folder={closed['kept']}/a --on process": "kept",
        f"estimate greedy_digits data.name=folder data.root={closed['kept']}/a": "kept",
        f"evaluate {closed['kept']}": "kept",
        f"evaluate {closed['kept']}/a": "kept",
        f"analyse {closed['kept']} --of posterior": "kept",
        f"doctor --data-root {closed['closed_set']}": "closed_set",
        f"doctor --data-root {closed['half_closed']}": "half_closed",
    }
    words = json.dumps([shlex.split(command) for command in commands])
    prefix = _WITHOUT if os.geteuid() == 0 else []
    ran = subprocess.run(
        [*prefix, sys.executable, "-c", _RUN, words], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    for (command, name), (code, said) in zip(commands.items(), json.loads(ran.stdout.splitlines()[-1]), strict=True):
        assert code == (0 if command.startswith("doctor") else 2), f"{command}\n{said}"
        assert closed[name] in said, f"{command}\n{said}"
        assert "Permission denied" in said and "bug" not in said, f"{command}\n{said}"
    assert not (tmp_path / "run").exists()
