"""Does `local-learning sweep` find the search, show its trials, and say by its exit code how it ended?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from engine.errors import RunError
from engine.search import Sweep, SweepResult, Trial, load_sweep

OWN = """
import engine
from ray import tune

def sweep():
    return engine.Sweep(
        name="own",
        recipe="greedy_digits",
        space={"method.num_segments": tune.choice([98])},
        fields=("epochs=1", "data.train_limit=100", "data.test_limit=100"),
        num_samples=1,
    )
"""


def _result(run_dir: Path, status: Any = "finished", trials: int = 3, best: bool = True) -> SweepResult:
    definition = Sweep(
        name="own",
        recipe="infopro_digits",
        space={"method.num_segments": tune.choice([1, 2]), "data.root": tune.choice([None])},
        against=("memory_bytes",),
    )
    found = tuple(
        Trial(
            number,
            {"method.num_segments": 2, "data.root": None},
            "finished",
            6,
            {"validation/accuracy": 0.9 - number / 100, "validation/loss": float("nan"), "memory_bytes": 2.0**20},
        )
        for number in range(trials)
    )
    if best and trials:
        found[0].metrics["test/accuracy"] = 0.875
    return SweepResult(run_dir, status, definition, found, found[0] if best else None, (0,) if best else (), 2)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the command asks for, and the result that it gets."""
    found: dict[str, Any] = {"result": _result(tmp_path / "my folder")}

    def search(*arguments: Any, **named: Any) -> SweepResult:
        found["arguments"], found["named"] = arguments, named
        if "raises" in found:
            raise found["raises"]
        return found["result"]

    monkeypatch.setattr("engine.search.sweep", search)
    return found


@pytest.mark.parametrize("word", ["k_digit", "kdigits", "K_digits"])
def test_a_wrong_name_ends_with_2_and_the_nearest_one(command: Any, word: str) -> None:
    answer = command("sweep", word)
    assert answer.code == 2
    assert f"sweep {word!r} does not exist" in answer.err and "'k_digits'" in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "SWEEP"),
        (("missing.py",), "missing.py: there is no such file"),
        (("empty.py",), r"defines no function sweep()"),
        (("k_digits", "--num-samples", "0"), "--num-samples 0: expected at least 1"),
        (("k_digits", "--num-samples", "x"), "--num-samples"),
        (("k_digits", "--max-concurrent", "0"), "max_concurrent=0: expected at least 1"),
        (("k_digits", "--on", "rya"), "invalid choice: 'rya'"),
        (("k_digits", "--resume", "allways"), "invalid choice: 'allways'"),
        (("k_digits", "--num-sample", "4"), "--num-samples"),
        (("infopro_cifar10_resnet32",), "data.root"),
        (("k_digits", "--run-dir", "taken"), "holds files but no sweep.json"),
        (("k_digits", "--on", "ray", "--address", "127.0.0.1:1"), "127.0.0.1:1: nothing answers there"),
        (("k_digits", "--address", "127.0.0.1:1"), "127.0.0.1:1: nothing answers there"),
        (("k_digits", "--on", "ray", "--address", "somewhere"), "expected auto, or HOST:PORT"),
    ],
)
def test_input_that_cannot_be_used_ends_with_2(command: Any, words: tuple[str, ...], said: str) -> None:
    Path("empty.py").touch()
    Path("taken").mkdir()
    Path("taken", "mine.txt").touch()
    answer = command("sweep", *words)
    assert answer.code == 2, answer.err
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert not Path("runs").exists()


def test_words_reach_the_search(command: Any, asked: dict[str, Any]) -> None:
    assert command("sweep", "k_digits").code == 0
    definition, number, at_once, plan, folder, resume, console = asked["arguments"]
    assert (definition.name, definition.against) == ("k_digits", load_sweep("k_digits").against)
    assert (number, at_once, folder, resume) == (None, None, None, "auto")
    assert (plan.executor, plan.address) == ("process", None)
    words = ("--num-samples", "5", "--max-concurrent", "3", "--on", "ray", "--address", "auto", "--run-dir", "d")
    assert command("sweep", "k_digits", *words, "--resume", "never").code == 0
    definition, number, at_once, plan, folder, resume, console = asked["arguments"]
    assert (number, at_once, folder, resume) == (5, 3, "d", "never")
    assert (plan.executor, plan.address) == ("ray", "auto")
    assert console is not None


def test_the_table_shows_trials_the_best_first_and_where_everything_is(command: Any, asked: dict[str, Any]) -> None:
    asked["result"] = _result(Path("my folder"))
    answer = command("sweep", "k_digits")
    assert answer.code == 0
    titles, *rows = answer.out.splitlines()[:4]
    for title in ("trial", "num_segments", "epochs", "validation/accuracy", "memory_bytes", "test/accuracy"):
        assert title in titles
    assert [row.split()[0] for row in rows] == ["trial-0000", "trial-0001", "trial-0002"]
    assert "90.00 %" in rows[0] and "87.50 %" in rows[0] and "Pareto front" in rows[0] and "1.00 MiB" in rows[0]
    assert "Pareto" not in rows[1]
    # Words of a column stand below its title.
    assert rows[0].index("90.00 %") == titles.index("validation/accuracy")
    assert "'my folder'/trials/trial-0000/recipe.json" in answer.out
    for name in ("sweep.md", "trials.parquet", "sweep.png", "tensorboard --logdir"):
        assert name in answer.out


def test_a_long_table_is_cut(command: Any, asked: dict[str, Any]) -> None:
    asked["result"] = _result(Path("s"), trials=57)
    lines = command("sweep", "k_digits").out.splitlines()
    assert sum(line.startswith("trial-") for line in lines) == 20
    assert "and 37 more in trials.parquet" in lines


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        ("finished", 0, "best recipe"),
        ("failed", 3, "no trial finished"),
        ("interrupted", 130, "the same command goes on"),
    ],
)
def test_the_exit_code_says_how_it_ended(
    command: Any, asked: dict[str, Any], status: Any, code: int, said: str
) -> None:
    asked["result"] = _result(Path("s"), status, best=status == "finished")
    answer = command("sweep", "k_digits")
    assert answer.code == code
    assert said in answer.out
    values = command("sweep", "k_digits", "--json").json
    assert (values["status"], values["best"]) == (status, 0 if status == "finished" else None)


@pytest.mark.parametrize("status", ["interrupted", "lost"])
def test_the_command_that_goes_on_is_said(command: Any, asked: dict[str, Any], status: Any) -> None:
    asked["result"] = _result(Path("my folder"), status, best=False)
    asked["result"].trials[1].status = "lost"
    assert "; the same command goes on" in command("sweep", "k_digits").out
    out = command("sweep", "k_digits", "--resume", "never").out
    assert "; the same command with --run-dir 'my folder' --resume auto goes on" in out
    assert "the same command goes on" not in out


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (("--on", "ray"), "plan.executor=process"),
        (("--on", "process"), "plan.executor=ray"),
        (("--address", "a:1"), "plan.executor=process"),
        (("--address", "a:1"), "plan.address=b:1"),
    ],
)
def test_flags_and_fields_that_contradict(
    command: Any, asked: dict[str, Any], flags: tuple[str, ...], field: str
) -> None:
    answer = command("sweep", "k_digits", *flags, field)
    assert answer.code == 2
    assert f"{field} contradicts --on or --address" in answer.err and "give one" in answer.err
    assert "arguments" not in asked
    for either in (flags, (field,)):
        assert command("sweep", "k_digits", *either).code == 0


def test_flags_and_fields_say_where(command: Any, asked: dict[str, Any]) -> None:
    for words, expected in (
        (("plan.executor=ray",), ("ray", None)),
        (("--on", "ray", "plan.executor=ray"), ("ray", None)),
        (("--address", "a:1"), ("ray", "a:1")),
        (("--on", "process", "plan.address=a:1"), ("process", "a:1")),
    ):
        assert command("sweep", "k_digits", *words).code == 0
        plan = asked["arguments"][3]
        assert (plan.executor, plan.address) == expected


def test_a_field_that_is_searched_cannot_be_given(command: Any, asked: dict[str, Any]) -> None:
    answer = command("sweep", "k_digits", "method.num_segments=2")
    assert answer.code == 2
    assert "method.num_segments: is searched by k_digits: leave it out" in answer.err


def test_what_was_lost_is_told_with_what_to_do(command: Any, asked: dict[str, Any]) -> None:
    asked["result"] = _result(Path("s"), "lost", best=False)
    asked["result"].trials[1].status = "lost"
    answer = command("sweep", "k_digits")
    assert answer.code == 3
    assert "best recipe" not in answer.out
    assert "1 of the trials lost a process or node again and again, or had no disk" in answer.out


def test_an_error_ends_with_its_code(command: Any, asked: dict[str, Any]) -> None:
    asked["raises"] = RunError("s: another process searches in this folder; wait for it")
    answer = command("sweep", "k_digits", "--json")
    assert (answer.code, answer.json["exit_code"]) == (2, 2)
    asked["raises"] = KeyboardInterrupt()
    assert command("sweep", "k_digits").code == 130


def test_the_task_of_the_command_says_by_what_trials_are_judged(command: Any, asked: dict[str, Any]) -> None:
    for words, expected in (((), "accuracy"), (("task.kind=retrieval",), "mean_average_precision")):
        assert command("sweep", "dhm_digits", *words).code == 0
        assert asked["arguments"][0].judged_by == f"validation/{expected}"


def test_files_that_have_changed_are_told(command: Any, asked: dict[str, Any]) -> None:
    asked["result"] = dataclasses.replace(asked["result"], warnings=("net.py has changed",))
    assert "\nnet.py has changed\n" in command("sweep", "k_digits").out
    assert command("sweep", "k_digits", "--json").json["warnings"] == ["net.py has changed"]


def test_json_has_every_trial(command: Any, asked: dict[str, Any]) -> None:
    values = command("sweep", "k_digits", "--json").json
    assert (values["metric"], values["pareto_front"], values["trials_at_once"]) == ("validation/accuracy", [0], 2)
    assert values["run_dir"] == str(asked["result"].run_dir)
    expected = [dataclasses.asdict(trial) for trial in asked["result"].trials]
    for trial, other in zip(values["trials"], expected, strict=True):
        assert trial["metrics"].pop("validation/loss") is None, "JSON has no NaN"
        other["metrics"].pop("validation/loss")
        assert trial == other


@pytest.mark.slow
def test_a_search_in_which_every_trial_fails_ends_with_3(command: Any) -> None:
    Path("own.py").write_text(OWN)
    answer = command("sweep", "own.py")
    assert answer.code == 3, answer.err
    assert "trial-0000 failed: " in answer.err and "num_segments=98" in answer.err
    assert "Traceback" not in answer.err
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("sweep-own-")
    assert (folder / "tune.txt").is_file()
    again = command("sweep", "own.py", "--json")
    assert again.json["status"] == "failed"
