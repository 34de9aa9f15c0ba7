"""Does every way to end have its exit code, its words, and its JSON?"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.cli import listing
from engine.cli.main import COMMANDS, main
from engine.cli.outcome import Outcome, strict_json
from engine.errors import LearnerError

ROOT = Path(engine.__file__).resolve().parent.parent
HEAVY = ("torch", "ray", "pydantic", "numpy", "pyarrow")


def loaded_after(words: list[str]) -> list[str]:
    """Return which heavy packages a new Python has loaded after a command."""
    code = (
        f"import json, sys\nfrom engine.cli.main import main\nassert main({words!r}) == 0\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["list", "data"], *([c, "--help"] for c in COMMANDS)])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    assert loaded_after(words) == []


@pytest.mark.parametrize("kind", ["methods", "recipes"])
def test_recipes_and_methods_are_listed_without_torch(kind: str) -> None:
    assert not {"torch", "ray"} & set(loaded_after(["list", kind]))


def test_python_m_engine_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "engine", "trian"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "'train'" in done.stderr
    assert done.stdout == ""


def test_help_names_every_command_and_exit_code(command: Any) -> None:
    answer = command("--help")
    assert answer.code == 0
    for name in (*COMMANDS, "  0  ", "  1  ", "  2  ", "  3  ", "  130  "):
        assert name in answer.out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(command: Any, name: str) -> None:
    answer = command(name, "--help")
    assert answer.code == 0
    assert f"local-learning {name}" in answer.out
    assert "--json" in answer.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no command is given"),
        (("trian",), "did you mean 'train'?"),
        (("--hlep",), "did you mean '--help'?"),
        (("train", "infopro_digits", "--dryrun"), "did you mean '--dry-run'?"),
        (("train", "infopro_digits", "--on", "proces"), "invalid choice: 'proces'"),
        (("train",), "RECIPE"),
        (("evaluate", "a", "b"), "one word too many"),
        (("export", "a"), "--to"),
        (("list", "methds"), "methods"),
    ],
)
def test_wrong_words_end_with_2_and_a_hint(command: Any, words: tuple[str, ...], said: str) -> None:
    answer = command(*words)
    assert answer.code == 2
    assert answer.err.startswith("local-learning: error: ")
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


def test_an_error_is_told_as_json_too(command: Any) -> None:
    answer = command("evaluate", "nowhere", "--json")
    assert answer.code == 2
    assert answer.json == {"error": answer.json["error"], "exit_code": 2}
    assert "nowhere" in answer.json["error"]
    assert "nowhere" in answer.err


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(options: Any) -> Outcome:
        raise error

    monkeypatch.setattr(listing, "run", run)


def test_a_bug_keeps_its_traceback_and_ends_with_1(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(ZeroDivisionError("a mistake of ours"), monkeypatch)
    answer = command("list", "--json")
    assert answer.code == 1
    assert "Traceback" in answer.err
    assert "please report it" in answer.err
    assert answer.json["exit_code"] == 1
    assert "a mistake of ours" in answer.json["error"]


def test_a_failed_learner_ends_with_3_without_its_traceback(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(LearnerError("segment1", "its loss is nan", "Traceback of the learner"), monkeypatch)
    answer = command("list")
    assert answer.code == 3
    assert answer.err == "local-learning: error: learner segment1: its loss is nan\n"


def test_ctrl_c_ends_with_130(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(KeyboardInterrupt(), monkeypatch)
    answer = command("list", "--json")
    assert answer.code == 130
    assert answer.json["exit_code"] == 130
    assert "Traceback" not in answer.err


class _Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_leaves_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", _Closed())
    assert main(["list", "data"]) == 0
    assert capsys.readouterr().err == ""


def test_lost_progress_does_not_look_like_success(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(BrokenPipeError(), monkeypatch)
    assert command("list").code == 130


def test_json_has_no_nan() -> None:
    values = {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (float("-inf"), 2)}}
    assert strict_json(values) == {"a": None, "b": [1.5, None], "c": {"d": [None, 2]}}
