"""Is a search told from every other by its fields, its recipe and its space, and the same in the next process?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from engine.errors import RunError
from engine.recipes import Recipe
from engine.search.folder import SweepFolder


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 4}, ["seed"]),
        ({"metric": "validation/loss", "against": ("memory_bytes",)}, ["against", "metric"]),
        ({"searcher": "tpe", "scheduler": "asha"}, ["scheduler", "searcher"]),
        ({"fields": ("epochs=1",)}, ["fields"]),
        ({"grace_epochs": 2, "reduction_factor": 4}, ["grace_epochs", "reduction_factor"]),
        ({"name": "other"}, ["name"]),
        ({"space": {"epochs": tune.choice([1, 2, 3])}}, ["space"]),
    ],
)
def test_another_search_in_the_folder_is_refused(
    opened: Callable[..., SweepFolder], changes: dict[str, Any], named: list[str]
) -> None:
    opened().close()
    with pytest.raises(RunError, match=rf"holds another search \(other {', '.join(named)}\); give another --run-dir"):
        opened(**changes)


def test_a_metric_that_is_given_is_the_one_that_is_taken_without(opened: Callable[..., SweepFolder]) -> None:
    folder = opened()
    folder.close()
    assert '"metric": "validation/accuracy"' in (folder.path / "sweep.json").read_text()
    opened(metric="validation/accuracy").close()


def test_another_recipe_in_the_folder_is_refused(
    opened: Callable[..., SweepFolder], tiny_recipe: Callable[..., Recipe]
) -> None:
    opened().close()
    with pytest.raises(RunError, match=r"other recipe\)"):
        opened(recipe=tiny_recipe(seed=1))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (tune.uniform(1, 2), tune.loguniform(1, 2)),
        (tune.uniform(1, 2), tune.uniform(1, 3)),
        (tune.randint(1, 9), tune.lograndint(1, 9)),
        (tune.quniform(2, 8, 1), tune.quniform(2, 8, 2)),
        (tune.quniform(1, 9, 1), tune.qloguniform(1, 9, 1)),
        (tune.randn(0, 1), tune.randn(0, 2)),
        (tune.choice([1, 2]), tune.choice([1, "2"])),
        (tune.choice([1, 2]), tune.choice([2, 1])),
        (tune.grid_search([1, 2]), tune.grid_search([1, 2, 3])),
    ],
)
def test_domains_are_told_apart(opened: Callable[..., SweepFolder], one: Any, other: Any) -> None:
    opened(space={"epochs": one}).close()
    with pytest.raises(RunError, match=r"other space\)"):
        opened(space={"epochs": other})


@pytest.mark.parametrize(
    "domain",
    [
        lambda: tune.loguniform(0.1, 1.0),
        lambda: tune.quniform(0, 4, 1),
        lambda: tune.qloguniform(1, 4, 1),
        lambda: tune.randn(0, 1),
        lambda: tune.choice(["a", None, 2]),
        lambda: tune.grid_search([1, True]),
    ],
)
def test_domains_are_the_same_in_the_next_process(opened: Callable[..., SweepFolder], domain: Any) -> None:
    """An object's address, as repr() shows it, would make another search of every process."""
    folder = opened(space={"epochs": domain()})
    folder.close()
    assert " at 0x" not in (folder.path / "sweep.json").read_text()
    opened(space={"epochs": domain()}).close()


def test_the_default_folder_tells_searches_apart(
    opened: Callable[..., SweepFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = []
    for changes in ({}, {"seed": 1}, {"num_samples": 3}, {"space": {"epochs": tune.choice([1])}}):
        folder = opened(path=None, **changes)
        found.append(folder.path)
        folder.close()
    assert len(set(found)) == 3 and found[0] == found[2]
    assert all(path.parent == tmp_path / "runs" and path.name.startswith("sweep-tiny-") for path in found)
