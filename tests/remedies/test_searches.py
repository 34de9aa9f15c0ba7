"""Does what a refusal of a search says lead to a search, and is the earlier one left as it is? Ray is not started."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from engine.errors import EngineError
from engine.recipes import Plan, Recipe
from engine.search import Sweep, Trial, load_sweep, sweep
from engine.search.copying import steps_between_copies
from engine.search.folder import SweepFolder
from engine.search.needs import Needs
from engine.search.settings import recipe_with
from engine.search.space import check_space

Changes = dict[str, Any]
Check = Callable[..., None]

WEIGHT = "method.reconstruction_weight"
SETTINGS = {WEIGHT: 0.5}


def refused(words: str, call: Callable[[], Any]) -> re.Match[str]:
    """See a call refused with words that match, and return the match."""
    with pytest.raises(EngineError) as found:
        call()
    match = re.search(words, str(found.value), re.DOTALL)
    assert match, f"the message no longer says {words!r}: {found.value}"
    return match


@pytest.fixture
def define(tiny_recipe: Callable[..., Recipe]) -> Callable[..., Sweep]:
    """A function: a search with these changes."""

    def make(**changes: Any) -> Sweep:
        recipe = tiny_recipe(epochs=4, data={"validation_fraction": 0.2})
        usual: Changes = {"name": "tiny", "recipe": recipe, "space": {WEIGHT: tune.loguniform(0.1, 10.0)}}
        return Sweep(**{**usual, **changes})

    return make


@pytest.fixture
def accepted(define: Callable[..., Sweep]) -> Check:
    """A function: see all that is looked at before Ray starts accept a search with these changes."""

    def run(plan: Plan | None = None, **changes: Any) -> None:
        definition = define(**changes)
        base, plan = definition.base(), plan or Plan(executor="process")
        check_space(definition, base)
        if definition.scheduler == "pbt":
            steps_between_copies(definition, recipe_with(base, definition, {}), plan)
        Needs(definition, recipe_with(base, definition, {}), plan)

    return run


GRID = {"searcher": "grid", "space": {WEIGHT: tune.grid_search([0.5, 1.0])}}
PBT = {"scheduler": "pbt", "num_samples": 2}


def of(domain: Any, name: str = WEIGHT) -> Changes:
    """Return a space of one field."""
    return {"space": {name: domain}}


CASES: dict[str, tuple[Changes, list[tuple[str, Changes]]]] = {
    "searcher": ({"searcher": "tpee"}, [("did you mean '(tpe)'", {"searcher": "{0}"})]),
    "scheduler": ({"scheduler": "ashaa"}, [("did you mean '(asha)'", {"scheduler": "{0}"})]),
    "metric": ({"metric": "validation/acuracy"}, [(r"did you mean '([\w/]+)'", {"metric": "{0}"})]),
    "an empty space": ({"space": {}}, [("expected a domain for at least one field", of(tune.choice([1.0])))]),
    "no trials": ({"num_samples": 0}, [("expected at least 1", {"num_samples": 1})]),
    "many trials": ({"num_samples": 10**6}, [(r"expected at most ([\d,]+) trials", {"num_samples": int})]),
    "a name": ({"name": "a/b"}, [("expected letters, digits, and -", {"name": "a-b"})]),
    "a long name": ({"name": "a" * 999}, [(r"more than (\d+) bytes", {"name": "a" * 50})]),
    "fields": ({"fields": "epochs=5"}, [(r"such as \('(epochs=5)',\)", {"fields": ("{0}",)})]),
    "where trials run": (
        {"fields": ("plan.window=2",)},
        [("with the command, or in plan=", {"plan": Plan(executor="process", window=2)})],
    ),
    "a field that is none": (
        of(tune.choice([1.0]), "method.reconstruction_weigt"),
        [(r"did you mean '([\w.]+)'", of(tune.choice([1.0]), "{0}"))],
    ),
    "a value": (of(tune.choice([1.0, "x"])), [("space", of(tune.choice([1.0, 2.0])))]),
    "no domain": (
        of(3),
        [("such as ray.tune.choice", of(tune.choice([1, 2]))), ("loguniform", of(tune.loguniform(0.1, 10)))],
    ),
    "a function": (of(tune.sample_from(lambda spec: 1.0)), [("expected one of .*choice", of(tune.choice([1.0])))]),
    "a range in a grid": (
        {"searcher": "grid"},
        [
            ("give ray.tune.choice", {**GRID, "space": {WEIGHT: tune.choice([1.0])}}),
            ("or another searcher", {"searcher": "random"}),
        ],
    ),
    "a large grid": (
        {
            "searcher": "grid",
            "space": {name: tune.grid_search([*range(1, 101)]) for name in (WEIGHT, "epochs", "seed")},
        },
        [("list fewer values", GRID), ("or set (searcher='random')", {"searcher": "random", **of(tune.choice([1.0]))})],
    ),
    "a list without values": (of(tune.choice([])), [("expected at least one", of(tune.choice([1.0])))]),
    "a long list": (
        of(tune.choice([*range(1, 1002)])),
        [("a range such as ray.tune.randint", of(tune.randint(1, 1002)))],
    ),
    "a range without values": (of(tune.uniform(2, 1)), [("from 2 to 1", of(tune.uniform(1, 2)))]),
    "no grace": (
        {"scheduler": "asha", "grace_epochs": 9},
        [
            (r"but trials have (\d) epochs.*lower it", {"scheduler": "asha", "grace_epochs": int}),
            ("or set scheduler='(none)'", {"scheduler": "{0}", "grace_epochs": 9}),
        ],
    ),
    "a population and tpe": (PBT | {"searcher": "tpe"}, [("set searcher='(random)'", PBT | {"searcher": "{0}"})]),
    "a population of one": (PBT | {"num_samples": 1}, [("at least 2 and 1", PBT)]),
    "a population that never copies": (
        PBT | {"perturb_every_epochs": 4},
        [("lower it", PBT | {"perturb_every_epochs": 3})],
    ),
    "a population that is evaluated too late": (
        PBT | {"perturb_every_epochs": 3, "plan": Plan(executor="process", evaluate_every_epochs=2)},
        [
            (
                "expected a divisor of 3",
                PBT | {"perturb_every_epochs": 3, "plan": Plan(executor="process", evaluate_every_epochs=3)},
            )
        ],
    ),
    "a population of other lengths": (
        PBT | of(tune.choice([3, 4]), "epochs"),
        [
            ("set this field with fields", PBT | {"fields": ("epochs=3",)}),
            ("or search it with scheduler='asha'", of(tune.choice([3, 4]), "epochs") | {"scheduler": "asha"}),
        ],
    ),
    "a population of other weights": (
        PBT | of(tune.choice([2, 3]), "method.num_segments"),
        [
            ("set this field with fields", PBT | {"fields": ("method.num_segments=2",)}),
            (
                "or search it with scheduler='asha'",
                of(tune.choice([2, 3]), "method.num_segments") | {"scheduler": "asha"},
            ),
        ],
    ),
    "replicas": ({"plan": Plan(executor="process", replicas=2)}, [("set .*=ray", {"plan": Plan(replicas=2)})]),
    "many threads": (
        {"fields": ("numerics.threads=1024",)},
        [
            ("lower numerics.threads", {"fields": ("numerics.threads=1",)}),
            ("set (plan.executor=ray)", {"plan": Plan()}),
        ],
    ),
}


def filled(value: Any, groups: tuple[str, ...]) -> Any:
    """Return a changed value in which "{0}" is what the message said; `int` stands for its number."""
    if value is int:
        return int(groups[0].replace(",", ""))
    if isinstance(value, dict):
        return {filled(name, groups): domain for name, domain in value.items()}
    if isinstance(value, tuple):
        return tuple(filled(each, groups) for each in value)
    return value.format(*groups) if isinstance(value, str) else value


@pytest.mark.parametrize("name", CASES)
def test_a_definition(name: str, accepted: Check) -> None:
    wrong, remedies = CASES[name]
    for says, right in remedies:
        found = refused(says, lambda: accepted(**wrong))
        accepted(**{field: filled(value, found.groups()) for field, value in right.items()})


def test_a_file_of_a_search(tmp_path: Path) -> None:
    known = refused(r"did you mean '(\w+)'", lambda: load_sweep("infopro_digit"))[1]
    assert load_sweep(known).name == known
    file = tmp_path / "search.py"
    file.write_text("")
    head = refused(r"expected `(def sweep\(\)) -> Sweep`", lambda: load_sweep(str(file)))[1]
    file.write_text(f"{head}:\n    return 3\n")
    kind = refused(r"expected engine\.(Sweep)", lambda: load_sweep(str(file)))[1]
    space = 'space={"method.reconstruction_weight": tune.choice([1.0])}'
    file.write_text(
        f"from ray import tune\nfrom engine import {kind}\n\n\n"
        f"{head}:\n    return {kind}(name='s', recipe='infopro_digits', {space})\n"
    )
    assert load_sweep(str(file)).name == "s"


@pytest.fixture
def opened(define: Callable[..., Sweep]) -> Callable[..., SweepFolder]:
    """A function: open the folder of a search in which one trial has ended, and let go of it again."""

    def run(folder: Path, resume: Any = "auto", **changes: Any) -> SweepFolder:
        definition = define(**changes)
        found = SweepFolder(definition, definition.base(), folder, resume)
        if not found.trials:
            found.note(Trial(0, SETTINGS, "finished", 4, {"validation/accuracy": 0.5}))
        found.close()
        return found

    return run


def content(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
    }


NEW = ["give another --run-dir", "--resume never"]


@pytest.mark.parametrize(
    ("spoil", "changes", "remedies"),
    [
        (lambda folder: None, {"seed": 7}, NEW),
        (lambda folder: (folder / "sweep.json").write_text("{"), {}, ["bring back a whole copy", *NEW]),
        (lambda folder: (folder / "trials.jsonl").write_text("{}\n{}\n"), {}, ["bring back a whole copy", *NEW]),
        (lambda folder: (folder / "trials.jsonl").write_text("{\n{}\n"), {}, ["bring back a whole copy", *NEW]),
        (lambda folder: (folder / "sweep.json").unlink(), {}, ["give another --run-dir"]),
    ],
    ids=["another search", "a damaged definition", "lines that are none", "a damaged line", "no search"],
)
def test_a_folder_that_cannot_be_gone_on_with(
    spoil: Callable[[Path], None],
    changes: Changes,
    remedies: list[str],
    opened: Callable[..., SweepFolder],
    tmp_path: Path,
) -> None:
    folder, whole = tmp_path / "s", tmp_path / "whole"
    opened(folder)
    shutil.copytree(folder, whole)
    spoil(folder)
    before = content(folder)
    for words in remedies:
        refused(words, lambda: opened(folder, **changes))
        assert content(folder) == before
    assert opened(tmp_path / "other", **changes).trials
    beside = opened(folder, resume="never", **changes)
    assert beside.path != folder and content(folder) == before
    for path in whole.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    assert opened(folder).trials[0].status == "finished"


def test_a_link_in_the_place_of_a_trial(opened: Callable[..., SweepFolder], tmp_path: Path) -> None:
    folder = tmp_path / "s"
    opened(folder)
    (folder / "trials").mkdir(exist_ok=True)
    (tmp_path / "elsewhere").mkdir()
    (folder / "trials" / "trial-0000").symlink_to(tmp_path / "elsewhere")
    link = refused(
        r"(\S+): is no folder, or a symbolic link to one; remove it, or give another", lambda: opened(folder)
    )[1]
    assert opened(tmp_path / "other").trials
    Path(link).unlink()
    assert opened(folder).trials[0].status == "finished"


def test_a_file_in_the_place_of_a_folder(opened: Callable[..., SweepFolder], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused("give the name of a folder", lambda: opened(tmp_path / "file"))
    assert opened(tmp_path / "folder").trials


def test_how_many_trials_there_are_at_once(
    define: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Accepted(Exception):
        """Trials would be started next."""

    def begin(*_: Any) -> None:
        raise Accepted

    monkeypatch.setattr("engine.search.driver._searched", begin)
    words = "expected at least 1, or leave it out"
    refused(words, lambda: sweep(define(), run_dir=tmp_path / "s", max_concurrent=0))
    for number in (1, None):
        with pytest.raises(Accepted):
            sweep(define(), run_dir=tmp_path / "s", max_concurrent=number)
