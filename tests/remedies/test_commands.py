"""Does what a command says when it refuses something lead to the result, and lose nothing?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.cli.main import main

Command = Callable[..., str]

TINY = "epochs=1 data.train_limit=100 data.test_limit=100 data.batch_size=20"
TRAIN = f"train infopro_digits {TINY} --on process"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A function: run a command line in a folder of its own, and return what it printed if it ends with this code."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(line: str, code: int = 0) -> str:
        capsys.readouterr()
        found = main(shlex.split(line))
        out, err = capsys.readouterr()
        assert found == code, f"{line} ended with {found}: {err}"
        return f"{out}\n{err}"

    return run


# A line that is refused, and what is made of it by regular expressions of the message: old text, new text.
LINES: list[tuple[str, list[tuple[str, str, str]]]] = [
    ("estimate infopro_digits --k 99", [(r"give 1 to (\d+)", "99", "{0}")]),
    ("estimate infopro_digits --k two", [(r"such as (--k \d)", "--k two", "{0}")]),
    ("estimate end_to_end_digits --k 2", [("leave --k out", "--k 2", "")]),
    ("estimate end_to_end_digits --profile", [("leave --profile out", "--profile", "")]),
    (
        "estimate infopro_digits --profile --k 1",
        [("leave --profile out", "--profile", ""), ("--k with a number above 1", "--k 1", "--k 2")],
    ),
    ("estimate infopro_digits --gpu-memory 16", [(r"such as (\w+) or (\w+)", "16", "{1}")]),
    ("train infopro_digit --on process --dry-run", [(r"did you mean '(\w+)'", "infopro_digit", "{0}")]),
    ("train epochs=1 --dry-run", [("no recipe is given before it", "train", "train infopro_digits")]),
    (
        "train infopro_digits --dry-run --on process plan.executor=ray",
        [("give one", "--on process", ""), ("give one", "plan.executor=ray", "")],
    ),
    (
        "train infopro_digits --dry-run --on process --address 10.0.0.1:6379",
        [("no Ray", "--address 10.0.0.1:6379", "")],
    ),
    ("train infopro_digits epoch=1 --dry-run --on process", [(r"did you mean '(\w+)'", "epoch=", "{0}=")]),
    (
        "list recipes infopro_cifar",
        [
            (r"Nearest: (\w+), \w+, (\w+)", "infopro_cifar", "{0}"),
            (r"Nearest: (\w+), \w+, (\w+)", "infopro_cifar", "{1}"),
            (r"('\S+') finds a part of a name", "infopro_cifar", "{0}"),
        ],
    ),
    ("lis recipes", [(r"did you mean '(\w+)'", "lis", "{0}")]),
]


def named(line: str, remedies: list[tuple[str, str, str]]) -> Any:
    """Return a case, in the slow suite where the line ends with an estimate."""
    return pytest.param(line, remedies, id=line, marks=[pytest.mark.slow] if line.startswith("estimate") else [])


@pytest.mark.parametrize(("line", "remedies"), [named(*row) for row in LINES])
def test_a_line_that_is_refused(line: str, remedies: list[tuple[str, str, str]], command: Command) -> None:
    message = command(line, code=2)
    for pattern, old, new in remedies:
        found = re.search(pattern, message)
        assert found, f"the message no longer says {pattern!r}: {message}"
        command(line.replace(old, new.format(*found.groups()), 1))


@pytest.mark.slow
def test_a_run_folder_that_holds_something_else(command: Command) -> None:
    command(f"{TRAIN} --run-dir run")
    before = Path("run/summary.json").read_bytes()
    message = command(f"{TRAIN} seed=7 --run-dir run", code=2)
    assert "another --run-dir" in message and "--resume never" in message
    command(f"{TRAIN} seed=7 --run-dir other")
    command(f"{TRAIN} seed=7 --run-dir run --resume never")
    assert Path("run/summary.json").read_bytes() == before, "the earlier run is left alone"
    Path("file").touch()
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    for wrong in ("file", "full"):
        assert "give" in command(f"{TRAIN} --run-dir {wrong}", code=2)
    assert [path.name for path in Path("full").iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_a_mirror_of_another_run(command: Command, tmp_path: Path) -> None:
    mirror, other = tmp_path / "mirror", tmp_path / "other"
    command(f"{TRAIN} --run-dir run plan.mirror={mirror}")
    assert "another plan.mirror" in command(f"{TRAIN} seed=7 --run-dir second plan.mirror={mirror}", code=2)
    command(f"{TRAIN} seed=7 --run-dir second plan.mirror={other}")
    assert (mirror / "summary.json").is_file() and (other / "summary.json").is_file()


@pytest.mark.slow
def test_networks_and_names_of_an_export(command: Command) -> None:
    command(f"train end_to_end_digits {TINY} --on process --run-dir cohort method.kind=dml")
    message = command("export cohort --to to.safetensors", code=2)
    flag = re.search(r"as in (--\w+ \w+)", message)
    assert flag, message
    command(f"export cohort --to to.safetensors {flag[1]}")
    suffix = re.search(r"with (\.\w+)", command(f"export cohort --to to.bin {flag[1]}", code=2))
    assert suffix
    command(f"export cohort --to again{suffix[1]} {flag[1]}")
    assert "make it first" in command(f"export cohort --to new/one.safetensors {flag[1]}", code=2)
    Path("new").mkdir()
    command(f"export cohort --to new/one.safetensors {flag[1]}")


@pytest.mark.slow
def test_a_teacher_that_is_not_given(command: Command) -> None:
    student = f"train end_to_end_digits {TINY} --on process method.kind=distillation"
    assert "its run folder" in command(f"{student} --run-dir student", code=2)
    command(f"{TRAIN} --run-dir teacher")
    command("export teacher --to teacher.safetensors")
    command(f"{student} --run-dir first method.teacher=teacher")
    command(f"{student} --run-dir second method.teacher=teacher.safetensors")
