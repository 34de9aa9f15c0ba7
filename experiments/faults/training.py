"""A training by the command, with faults put into it: given again until it is finished, and watched from outside."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import experiments
from experiments.faults import disk
from experiments.faults.fault import DISK, PAUSE, Case
from experiments.faults.inside import VARIABLE, happened
from experiments.faults.leftovers import Leftovers
from experiments.faults.nodes import Nodes, nodes_for

_PAUSE_SECONDS = 0.05
_LOOK_SECONDS = 0.25
_GOING_SECONDS = 20.0
_ROOT = Path(experiments.__file__).resolve().parents[1]


@dataclass
class Ended:
    """How one command of a training ended.

    Attributes:
        started: when, as `time.time`.
        ended: when.
        code: its return code; None of one that hung and was ended.
        words: the last line of what it said to standard error that says an error.
        bug: whether it ended with a traceback.
        left: what was left of it, in words.
    """

    started: float
    ended: float
    code: int | None
    words: str
    bug: bool
    left: list[str]


@dataclass
class Trained:
    """A training with its faults, as it was seen from outside.

    Attributes:
        case: what was to happen.
        commands: how each command ended, in their order.
        came: of each fault that came, by its number: when, to which process, and after how many learners were built.
        summary: what summary.json holds; None of a training that did not finish.
        log: what log.txt holds.
        said: what all commands have said to standard error.
        reported: when each step was reported for the last time, as `time.time`.
        starts: when teams were started.
    """

    case: Case
    commands: list[Ended]
    came: dict[int, dict[str, Any]]
    summary: dict[str, Any] | None
    log: str
    said: str
    reported: dict[int, float] = field(default_factory=dict)
    starts: list[float] = field(default_factory=list)


def environment(folder: Path, temporary: Path) -> dict[str, str]:
    """Return the environment of a command into whose processes faults are put.

    Args:
        folder: for ``case.json`` and what happens.
        temporary: for temporary files.
    """
    path = [str(Path(__file__).with_name("start")), str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    library = folder / disk.LIBRARY
    return {
        **os.environ,
        **({disk.VARIABLE: str(library)} if library.exists() else {}),
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "PYTHONPATH": os.pathsep.join(path),
        "TMPDIR": str(temporary),
        VARIABLE: str(folder),
    }


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder for temporary files whose name is short enough for the sockets of a Ray below it."""
    path = Path(tempfile.mkdtemp(prefix="faults_"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def train_with_faults(case: Case, folder: Path, bound_seconds: float) -> Trained:
    """Train; the command is given again where it ends before the training does, once for every fault and once more.

    Args:
        case: the training and its faults.
        folder: for the run folder and all that is noted; it must not exist.
        bound_seconds: after which a command counts as hanging, and is ended with all its processes.
    """
    folder.mkdir(parents=True)
    run_dir = folder / "run"
    (folder / "case.json").write_text(json.dumps({**case.to_json(), "run_dir": str(run_dir)}, indent=1))
    if any(fault.victim == DISK for fault in case.faults):
        disk.make_library(folder)
    command = [sys.executable, "-m", "engine", "train", *case.words(), "--run-dir", str(run_dir)]
    commands: list[Ended] = []
    with temporary_folder() as temporary, nodes_for(case, environment(folder, temporary), folder) as nodes:
        if nodes is not None:
            command.append(f"plan.address={nodes.address}")
        for _ in range(len(case.faults) + 2):
            commands.append(_run(command, case, folder, temporary, bound_seconds, nodes))
            if commands[-1].code in (0, None):
                break
    summary = run_dir / "summary.json"
    log = run_dir / "log.txt"
    return Trained(
        case,
        commands,
        came(folder),
        json.loads(summary.read_text()) if summary.exists() else None,
        log.read_text() if log.exists() else "",
        (folder / "errors.txt").read_text(),
        _reported(run_dir / "metrics.jsonl"),
        [event["time"] for event in happened(folder, "start")],
    )


def undisturbed_weights(case: Case, folder: Path) -> str:
    """Return the digest of the weights that a case has without its faults: trained in one process, once in a folder."""
    run_dir = folder / case.recipe
    if not (run_dir / "summary.json").exists():
        words = [case.recipe, *case.fields, "--on", "process", "--run-dir", str(run_dir)]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        done = subprocess.run(
            [sys.executable, "-m", "engine", "train", *words],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    weights: str = json.loads((run_dir / "summary.json").read_text())["weights_sha256"]
    return weights


def _run(
    command: list[str], case: Case, folder: Path, temporary: Path, bound_seconds: float, nodes: Nodes | None
) -> Ended:
    said = folder / "errors.txt"
    before = said.stat().st_size if said.exists() else 0
    started = time.time()
    deadline = time.monotonic() + bound_seconds
    with said.open("ab") as errors, (folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            command, env=environment(folder, temporary), stdout=output, stderr=errors, start_new_session=True
        )
    leftovers = Leftovers(process.pid, temporary)
    looked = 0.0
    code: int | None = None
    try:
        while (code := process.poll()) is None and time.monotonic() < deadline:
            go_on_after_pauses(case, folder)
            if nodes is not None:
                nodes.take_away(folder)
            if time.monotonic() - looked > _LOOK_SECONDS:
                leftovers.look()
                looked = time.monotonic()
            time.sleep(_PAUSE_SECONDS)
        ended = time.time()
        left = leftovers.after(_GOING_SECONDS) if code is not None else []
        if nodes is not None and code is not None:
            left += nodes.groups_left(_GOING_SECONDS)
    finally:
        leftovers.end()
        process.wait()
    text = said.read_bytes()[before:].decode(errors="replace")
    errors_said = [line for line in text.splitlines() if "local-learning: error:" in line]
    return Ended(started, ended, code, errors_said[-1] if errors_said else "", "Traceback" in text, left)


def go_on_after_pauses(case: Case, folder: Path) -> None:
    """Let processes go on that were stopped for a while, when it is over."""
    for number, fault in enumerate(case.faults):
        if fault.kind == PAUSE:
            with contextlib.suppress(OSError, ValueError):
                said = json.loads((folder / f"fault-{number}.json").read_text())
                # Again and again until its process is gone: it costs nothing, and one signal could come too early.
                if fault.seconds < time.time() - said["time"] < 3 * fault.seconds:
                    os.kill(said["pid"], signal.SIGCONT)


def came(folder: Path) -> dict[int, dict[str, Any]]:
    """Return what is noted of each fault that has come, by its number."""
    found = [json.loads(path.read_text()) for path in folder.glob("fault-*.json")]
    return {each["number"]: each for each in sorted(found, key=lambda each: each["time"])}


def _reported(metrics: Path) -> dict[int, float]:
    found: dict[int, float] = {}
    with contextlib.suppress(OSError):
        for line in metrics.read_text().splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                found.setdefault(row["step"], row["time"])
    return found
