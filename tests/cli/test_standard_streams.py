"""Does a training end with its result when a standard stream is closed, full, or a terminal that goes away?"""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

import engine
from engine.cli.main import main

ROOT = Path(engine.__file__).resolve().parent.parent
TRAIN = ("train", "greedy_digits", "epochs=1", "data.train_limit=100", "data.test_limit=100", "--on", "process")


def shell(redirections: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose streams a shell redirects."""
    command = shlex.join([sys.executable, "-m", "engine", *words])
    return subprocess.run(
        ["bash", "-c", f"{command} {redirections}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("redirections", "code", "said"),
    [
        (">&-", 2, "standard output cannot be written to: it is closed"),
        (">/dev/full", 2, "standard output cannot be written to: No space left on device"),
        (">&- 2>&-", 2, ""),
        (">/dev/full 2>/dev/full", 2, ""),
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
    ],
)
def test_a_result_that_cannot_be_printed(redirections: str, code: int, said: str, tmp_path: Path) -> None:
    done = shell(redirections, tmp_path, "list", "data")
    assert done.returncode == code
    assert (f"local-learning: error: {said}\n" if said else "") == done.stderr
    assert ("digits" in done.stdout) == (code == 0)


@pytest.mark.parametrize("redirections", [">/dev/full", "2>&-"])
def test_help_and_errors_need_no_stream_either(redirections: str, tmp_path: Path) -> None:
    assert shell(redirections, tmp_path, "train", "--help").returncode == (2 if redirections[0] == ">" else 0)
    assert shell(redirections, tmp_path, "trian").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", ">/dev/full", "2>/dev/full"])
def test_training_goes_on_to_its_result(redirections: str, tmp_path: Path) -> None:
    done = shell(redirections, tmp_path, *TRAIN, "--run-dir", "run")
    assert done.returncode == (0 if redirections == "2>/dev/full" else 2)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["warnings"] == []
    # Nothing that was meant for a closed stream has come into a file.
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["split"] in ("train", "test")
    if redirections == ">/dev/full":
        assert str(tmp_path / "run") in done.stderr


@pytest.mark.slow
def test_a_terminal_that_goes_away(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    training = subprocess.Popen(
        [sys.executable, "-m", "engine", *TRAIN, "--run-dir", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    until = time.monotonic() + 60
    while not (tmp_path / "run" / "log.txt").exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.close(ours)
    out, _ = training.communicate(timeout=120)
    assert training.returncode == 0
    assert b"finished" in out
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_current_folder_that_is_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["train", "greedy_digits"]) == 2
    assert capsys.readouterr().err == (
        "local-learning: error: the current folder has been removed; change to one that exists, as with `cd ~`, and "
        "give the same command\n"
    )
    assert main(["--help"]) == 0
