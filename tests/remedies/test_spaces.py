"""Does what a refusal of a search's space, trials or words says lead to a search? Ray is not started."""

from __future__ import annotations

import builtins
import json
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import tune

import engine.search
from engine.cli.main import main
from engine.errors import RecipeError
from engine.recipes import InfoPro, Plan, Recipe, with_cuts
from engine.search import Sweep, Trial, load_sweep, measured_cuts
from engine.search.settings import recipe_with
from engine.search.space import check_space
from engine.search.trial_log import append_trial, read_trials

Refused = Callable[..., re.Match[str]]
Define = Callable[..., Sweep]

WEIGHT = "method.reconstruction_weight"
NESTED: Any = 1.0
for _ in range(12):
    NESTED = [NESTED]


@pytest.fixture
def define(tiny_recipe: Callable[..., Recipe]) -> Define:
    """A function: a search with these changes, whose definition and space are checked."""

    def make(**changes: Any) -> Sweep:
        recipe = tiny_recipe(epochs=4, data={"validation_fraction": 0.2})
        found = Sweep(**{"name": "tiny", "recipe": recipe, "space": {WEIGHT: tune.loguniform(0.1, 10.0)}, **changes})
        base = found.base()
        check_space(found, base)
        recipe_with(base, found, {})
        return found

    return make


def of(domain: Any, name: Any = WEIGHT) -> dict[str, Any]:
    """Return a space of one field."""
    return {"space": {name: domain}}


# What is refused, what the message says, and what is done then.
CASES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "a name that is none": (of(tune.choice([1.0]), "a=b"), "expected one such as '(method.weight)'", {}),
    "a number for a name": (of(tune.choice([1.0]), 3), "no name of a field", of(tune.choice([1.0]))),
    "a field of the plan": (
        of(tune.choice([1]), "plan.window"),
        "expected a field of the recipe",
        of(tune.choice([1.0])),
    ),
    "a grid of no list": (of({"grid_search": 3}), "expected a list of values", of({"grid_search": [3]})),
    "no whole number": (
        of(tune.randint(1.5, 3), "epochs"),
        "its lower bound is .* expected a whole number",
        of(tune.randint(1, 3), "epochs"),
    ),
    "a large bound": (of(tune.uniform(0, 2.0**70)), r"expected a number below 2 \*\* 63", of(tune.uniform(0, 2.0))),
    "a step of nothing": (
        of(tune.quniform(1, 2, -0.5)),
        "its step is -0.5, expected more than 0",
        of(tune.quniform(1, 2, 0.5)),
    ),
    "a deep value": (of(tune.choice([NESTED])), "nested more than 8 deep", of(tune.choice([1.0]))),
    "a key that is no text": (
        of(tune.choice([{1: 2.0}])),
        "holds the key 1, expected text",
        of(tune.choice([{"first": 2.0, "last": 1.0}])),
    ),
    "no text": (of(tune.choice(["a\0"]), "name"), "which is no text that a file could hold", of(tune.choice([1.0]))),
    "a domain in a list": (
        of(tune.choice([tune.choice([1.0])])),
        "expected plain values, and a domain of its own for each field",
        of(tune.choice([1.0])),
    ),
    "not finite": (of(tune.choice([math.inf])), "expected a finite number", of(tune.choice([1.0]))),
    "a large number": (of(tune.choice([2**70]), "seed"), "expected at most (63)", of(tune.choice([2**30]), "seed")),
    "an object": (of(tune.choice([object()])), "expected plain values: numbers, text", of(tune.choice([1.0]))),
    "no recipe": ({"recipe": 3}, "recipe: .*expected a recipe, its (name)", {}),
    "no space": ({"space": [WEIGHT]}, "expected a dictionary of domains by field", {}),
    "no texts": ({"fields": 3}, r"expected a tuple of texts, such as \('(epochs=5)',\)", {"fields": ("epochs=5",)}),
    "no whole samples": ({"num_samples": 1.5}, "expected a whole number", {"num_samples": 2}),
    "few grace epochs": ({"grace_epochs": 0}, "expected at least 1, 1 and 2", {"grace_epochs": 1}),
    "a small factor": ({"reduction_factor": 1}, "expected at least 1, 1 and (2)", {"reduction_factor": 2}),
    "a population without time": (
        {"scheduler": "pbt", "num_samples": 2, "perturb_every_epochs": 0},
        "at least 2 and 1",
        {"scheduler": "pbt", "num_samples": 2, "perturb_every_epochs": 1},
    ),
    "fields that are none": ({"fields": ("epoch=3",)}, r"did you mean '(epochs)'", {"fields": ("epochs=3",)}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_definition(name: str, define: Define, refused: Refused) -> None:
    wrong, says, right = CASES[name]
    refused(says, lambda: define(**wrong))
    assert define(**right)


def test_what_tpe_cannot_search(define: Define, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space is known that passes all other checks and that Optuna refuses; it may come to refuse some."""

    def odd(sweep: Sweep, *_: Any) -> Any:
        raise ValueError("no such distribution")

    monkeypatch.setattr("engine.search.space.suggested", odd)
    found = refused("set searcher='(random)'", lambda: define(searcher="tpe"))
    assert define(searcher=found[1])


def test_optuna_that_is_not_installed(define: Define, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    brought = builtins.__import__

    def without(name: str, *given: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "optuna":
            raise ImportError("No module named 'optuna'")
        return brought(name, *given, **named)

    with monkeypatch.context() as bare:
        bare.setattr(builtins, "__import__", without)
        says = r"`pip install 'local-learning\[(\w+)\]'`, or choose another one"
        extra = refused(says, lambda: define(searcher="tpe"))[1]
        assert define(searcher="random")
    names = re.search(rf"\n{extra} = \[([^]]+)\]", (Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert names and "optuna" in names[1]
    assert define(searcher="tpe")


LINES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another field": (lambda line: {**line, "settings": {"epochs": 3}}, "has other fields than the search"),
    "another value": (lambda line: {**line, "settings": {WEIGHT: "x"}}, "is none of its values"),
    "a lineage that cannot be": (lambda line: {**line, "epochs": 1}, "contradict each other"),
    "no number": (lambda line: {**line, "number": -1}, "line 1"),
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_of_the_trials(name: str, define: Define, tmp_path: Path, refused: Refused) -> None:
    definition, log = define(), tmp_path / "trials.jsonl"
    stage: Any = {"until_epoch": 2, "run": "trial-0001", "settings": {WEIGHT: 1.0}}
    append_trial(log, Trial(0, {WEIGHT: 0.5}, "finished", 4, {}, lineage=[stage]))
    whole = log.read_bytes()
    spoil, says = LINES[name]
    log.write_text(json.dumps(spoil(json.loads(whole))) + "\n")
    refused(f"{says}.*bring back a whole copy of it", lambda: read_trials(log, definition))
    log.write_bytes(whole)
    assert read_trials(log, definition)[0].epochs == 4


def test_files_of_searches(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.py"
    file.write_text(
        "from engine import Sweep\nfrom ray import tune\n\n\ndef sweep():\n"
        f"    return Sweep(name='s', recipe='infopro_digits', space={{'{WEIGHT}': tune.choice([1.0])}})\n"
    )
    path = refused(r"(\S+): there is no such file", lambda: load_sweep("other.py"))[1]
    file.rename(path)
    assert load_sweep("other.py").name == "s"
    Path(path).write_text(Path(path).read_text().replace("space=", "spaces="))
    line = refused(r"other\.py:(\d+): sweep\(\) failed", lambda: load_sweep("other.py"))[1]
    lines = Path(path).read_text().splitlines(keepends=True)
    lines[int(line) - 1] = lines[int(line) - 1].replace("spaces=", "space=")
    Path(path).write_text("".join(lines))
    assert load_sweep("other.py").name == "s"


@pytest.mark.parametrize(
    ("line", "says", "then"),
    [
        ("--num-samples 0", "expected at least (1)", "--num-samples {0}"),
        ("method.weight=2", "(method.weight): .*leave it out", ""),
        ("--num-sample 3", "did you mean '(--num-samples)'", "{0} 3"),
        ("plan.windw=2", r"did you mean '(plan\.window)'", "{0}=2"),
    ],
)
def test_words_of_a_search(
    line: str, says: str, then: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Sweep] = []

    def begin(definition: Sweep, *_: Any) -> Any:
        begun.append(definition)
        raise RecipeError("begun")

    monkeypatch.setattr(engine.search, "sweep", begin)
    name = next(iter(engine.search.definition.shipped_sweeps()))
    searched = next(iter(load_sweep(name).space))
    assert main(shlex.split(f"sweep {name} {line.replace('method.weight', searched)}")) == 2
    found = re.search(says.replace("method.weight", searched), capsys.readouterr().err)
    assert found and not begun
    main(shlex.split(f"sweep {name} {then.format(*found.groups())}"))
    assert begun, capsys.readouterr().err


def test_the_cuts_of_a_search(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Measured once, and what is chosen is no matter here.
    monkeypatch.setattr(measured_cuts, "chosen_recipe", lambda recipe, *_: with_cuts(recipe, ("layer2_0",)))
    base = tiny_recipe(method=InfoPro(num_segments=2, cuts="measured"))
    definition = Sweep(name="tiny", recipe=base, space={WEIGHT: tune.choice([1.0])})

    def cut(folder: Path) -> Any:
        return measured_cuts.with_base_cuts(definition, base, folder, Plan(executor="process"), print)[1].method.cuts

    folder, other = tmp_path / "search", tmp_path / "other"
    folder.mkdir()
    measured_cuts.keep_base_cuts(base, with_cuts(base, ("layer1_0",)), folder)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for damaged in (b"{", b'{"version": 1}', whole.replace(b"cuts", b"cut")):
        file.write_bytes(damaged)
        refused("bring back a whole copy of it, or give another --run-dir", lambda: cut(folder))
        assert cut(other) == ("layer2_0",)
        assert file.read_bytes() == damaged
    file.write_bytes(whole)
    assert cut(folder) == ("layer1_0",)
