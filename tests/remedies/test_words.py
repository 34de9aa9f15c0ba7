"""Does what a command says of words that it does not take lead to words that it takes, and to nothing before that?"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.cli.main import main
from engine.errors import InputError

TWO = "compare greedy_digits infopro_digits"
# A line that is refused, what the message says, and the line then; "{0}" is what the message said.
LINES: list[tuple[str, str, str]] = [
    (f"{TWO} --seeds three", "a number of seeds such as (3)", f"{TWO} --seeds {{0}}"),
    (f"{TWO} --seeds 0", "a list of seeds such as (4,7)", f"{TWO} --seeds {{0}}"),
    (f"{TWO} seed=3", "give them as (--seeds 4,7)", f"{TWO} {{0}}"),
    (f"{TWO} --on process plan.executor=ray", "mean plan.executor=process: give one", f"{TWO} --on process"),
    (f"{TWO} --on process plan.executor=ray", "mean plan.executor=process: give one", f"{TWO} plan.executor=ray"),
    (f"{TWO} --on process --address auto", "leave one of the two out", f"{TWO} --on process"),
    (f"{TWO} --on process --address auto", "leave one of the two out", f"{TWO} --address auto"),
    (f"{TWO} dgl_digits:plan.window=3", "give it as a word of its own", f"{TWO} dgl_digits plan.window=3"),
    (f"{TWO} dgl_digits:seed=3", "give (--seeds)", f"{TWO} dgl_digits {{0}} 3"),
    (
        f"{TWO} greedy_digits",
        "two with different fields are told apart as RECIPE:field=value",
        f"{TWO} greedy_digits:epochs=3",
    ),
    (f"{TWO} --seeds 99999999999", "a number of seeds such as (3)", f"{TWO} --seeds {{0}}"),
    (f"{TWO} --seeds {'9' * 5000}", r"at most ([\d]+),(\d+)\), or", f"{TWO} --seeds {{0}}{{1}}"),
    (f"{TWO} --seeds 1,{'9' * 5000}", "a list of seeds such as (4,7)", f"{TWO} --seeds {{0}}"),
    (
        f"{TWO} --address a:1 plan.address=b:1",
        "plan.address=b:1 contradicts --on or --address, which mean plan.address=(a:1): give one",
        f"{TWO} --address {{0}}",
    ),
    (f"{TWO} --address a:1 plan.address=b:1", "plan.address=(b:1) contr.*: give one", f"{TWO} plan.address={{0}}"),
    ("compare epochs=2", "expected 1 or more", "compare epochs=2 greedy_digits"),
    ("compare greedy_digits infopro_digit", r"did you mean '(\w+)'", "compare greedy_digits {0}"),
    (f"{TWO} epoch=3", r"did you mean '(epochs)'", f"{TWO} {{0}}=3"),
    (f"{TWO} --max-concurrent two", "invalid int value: 'two'", f"{TWO} --max-concurrent 2"),
    (
        "train infopro_digits --on process --address auto",
        "leave one of the two out",
        "train infopro_digits --address auto",
    ),
    (
        "train infopro_digits --on process --address auto",
        "leave one of the two out",
        "train infopro_digits --on process",
    ),
    (
        "train infopro_digits --on process plan.executor=ray",
        "plan.executor=ray contradicts --on or --address, which mean plan.executor=process: give one",
        "train infopro_digits --on process",
    ),
    (
        "train infopro_digits --on process plan.executor=ray",
        "(plan.executor=ray) contradicts .*: give one",
        "train infopro_digits {0}",
    ),
    (
        "train infopro_digits --address a:1 plan.address=b:1",
        "contradicts .* mean plan.address=(a:1): give one",
        "train infopro_digits --address {0}",
    ),
    (
        "train infopro_digits --address a:1 plan.address=b:1",
        "(plan.address=b:1) contradicts .*: give one",
        "train infopro_digits {0}",
    ),
    ("train infopro_digits epochs", "as in (epochs=2)", "train infopro_digits {0}"),
    ("train infopro_digits --run-dirr x", "did you mean '(--run-dir)'", "train infopro_digits {0} x"),
    ("train infopro_digits --resume maybe", "choose from '?(auto)'?, '?(never)'?", "train infopro_digits --resume {1}"),
    ("analyse run --of cam --images 0", "expected (1) or more", "analyse run --of cam --images {0}"),
    ("analyse run --of cam --probe-epochs 0", "expected (1) or more", "analyse run --of cam --probe-epochs {0}"),
    ("analyse run --of cam --positions a", "such as (--positions 3,17)", "analyse run --of cam {0}"),
    (
        "analyse run --of cam --on process --address auto",
        "leave one of the two out",
        "analyse run --of cam --address auto",
    ),
    (
        "analyse run --of cam --on process --address auto",
        "leave one of the two out",
        "analyse run --of cam --on process",
    ),
    ("analyse run", "required: (--of)", "analyse run {0} cam"),
    (f"analyse run --of cam --positions {'9' * 5000}", "such as (--positions 3,17)", "analyse run --of cam {0}"),
    (f"measure infopro_digits --k {'9' * 5000}", "such as (--k 1,2,4)", "measure infopro_digits {0}"),
    ("measure infopro_digits --out .", "give a folder that is empty or does not", "measure infopro_digits --out empty"),
    ("measure infopro_digits --out .", "give a folder that .* does not exist", "measure infopro_digits --out new"),
    ("measure infopro_digits --out .", "or leave --out out", "measure infopro_digits"),
    ("measure infopro_digits --k two", "such as (--k 1,2,4)", "measure infopro_digits {0}"),
    ("measure epochs=1", "no recipe is given before it", "measure infopro_digits epochs=1"),
    (
        "measure infopro_digits --out file",
        "give the name of one that is, or can be made",
        "measure infopro_digits --out new",
    ),
    ("measure infopro_digits --out /proc/x", "give another folder", "measure infopro_digits --out new"),
    ("mesure infopro_digits", r"did you mean '(measure)'", "{0} infopro_digits"),
    ("--versio", "did you mean '(--version)'", "{0}"),
    ("", "there is (list), train", "{0}"),
    ("", r"`local-learning (--help)` describes them", "{0}"),
    ("doctor now", r"one word too many; `local-learning (doctor --help)` shows what is expected", "{0}"),
    ("measure epochs=1", r"`local-learning (list recipes)` shows them", "{0}"),
    ("train infopro_digit", r"`local-learning (list)` shows all recipes", "{0}"),
]


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has begun; each command goes so far as to call what does its work."""
    found: list[str] = []

    def beginning(name: str) -> Callable[..., Any]:
        def begin(*_: Any, **__: Any) -> Any:
            found.append(name)
            raise InputError("begun")

        return begin

    places = {
        "compare": "engine.comparison.compare",
        "train": "engine.training.train",
        "analyse": "engine.analysis.analyse",
        "measure": "engine.benchmarking.measure",
    }
    for name, place in places.items():
        monkeypatch.setattr(place, beginning(name))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    return found


@pytest.mark.parametrize(("line", "says", "then"), LINES)
def test_a_line_that_is_refused(
    line: str, says: str, then: str, begun: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(shlex.split(line)) == 2
    message = capsys.readouterr().err
    found = re.search(says, message, re.DOTALL)
    assert found, f"the message no longer says {says!r}: {message}"
    assert not begun
    words = shlex.split(then.format(*found.groups()))
    code = main(words)
    # What the other commands do is done at once.
    assert (begun == words[:1]) if code else ("list" in words or words[-1].startswith("--")), capsys.readouterr().err


def test_a_current_folder_that_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["list", "recipes"]) == 2
    remedy = re.search(
        r"change to one that exists, as with `cd (~)`, and give the same command", capsys.readouterr().err
    )
    assert remedy
    os.chdir(os.path.expanduser(remedy[1]))
    assert main(["list", "recipes"]) == 0
