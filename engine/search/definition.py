"""Definition of a search, and where one is found by its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.errors import RecipeError
from engine.paths import absolute, kind_of
from engine.recipes import Plan, Recipe, apply_overrides, load_recipe, nearest
from engine.recipes.files import file_error, import_file
from engine.tasks import SCORES, Metric, headline_of

Searcher = Literal["random", "grid", "tpe"]
Scheduler = Literal["asha", "pbt", "none"]

_COSTS = (
    Metric("memory_bytes", higher_is_better=False, is_share=False),
    Metric("images_per_second", higher_is_better=True, is_share=False),
)

MOST_TRIALS = 10_000
"""The most trials of one search."""

_LONGEST_NAME = 100


@dataclass(frozen=True)
class Sweep:
    """A search over the fields of a recipe.

    Attributes:
        name: of the search, and of its folder.
        recipe: name of a recipe, path of a file, or a recipe.
        space: what each searched field may be, by its dotted name, such as ``{"method.weight": tune.loguniform(0.1,
            10)}``: a domain of ``ray.tune``, or ``tune.grid_search([...])``.
        fields: fixed changes of the recipe, such as ``("epochs=5",)``.
        metric: what is to be best, such as ``validation/loss``; of several networks, their mean. Empty for the score by
            which the task of the recipe with its fixed changes judges networks: ``validation/accuracy`` of
            classification.
        against: further metrics, such as ``memory_bytes``, the peak of the learner that holds most, or
            ``images_per_second``: with them trials are compared by their Pareto front, too.
        searcher: ``random`` and ``grid`` draw settings beforehand, ``tpe`` (Optuna's) learns from earlier trials.
        scheduler: ``asha`` stops trials early that are behind (Li et al. 2020); ``pbt`` lets those that are behind
            copy the weights of better ones and change settings (Jaderberg et al. 2017, see `engine.search.population`);
            ``none`` trains all to the end.
        num_samples: trials, with ``pbt`` the size of the population; a grid has one for each combination instead.
        grace_epochs: epochs that ASHA leaves every trial.
        reduction_factor: ASHA keeps one of so many trials at each of its looks.
        perturb_every_epochs: epochs between two moments at which the members of a population copy each other.
        seed: origin of what is drawn; the seed of every trial's recipe is the recipe's.
        measures: what trials can be measured by, by name.
        judged_by: the metric, or the score that stands for it where none is given.

    Raises:
        RecipeError: a field of the definition cannot be used.
    """

    name: str
    recipe: str | Path | Recipe
    space: Mapping[str, Any]
    fields: tuple[str, ...] = ()
    metric: str = ""
    against: tuple[str, ...] = field(default=())
    searcher: Searcher = "random"
    scheduler: Scheduler = "none"
    num_samples: int = 8
    grace_epochs: int = 1
    reduction_factor: int = 3
    perturb_every_epochs: int = 1
    seed: int = 0
    measures: Mapping[str, Metric] = field(init=False, repr=False, compare=False)
    judged_by: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check what can be checked without looking at the searched fields."""
        self._check_types()
        recipe, _ = apply_overrides(self.base(), Plan(), self.fields)
        headline = headline_of(recipe)
        scores = {**SCORES, headline.name: headline}
        measures = {f"validation/{name}": score for name, score in scores.items()}
        object.__setattr__(self, "measures", measures | {cost.name: cost for cost in _COSTS})
        # The metric stays as it is given: another task, by other fixed changes, may have another score.
        object.__setattr__(self, "judged_by", self.metric or f"validation/{headline.name}")
        for name, value, known in (
            ("searcher", self.searcher, ("random", "grid", "tpe")),
            ("scheduler", self.scheduler, ("asha", "pbt", "none")),
            ("metric", self.judged_by, tuple(self.measures)),
            *(("against", metric, tuple(self.measures)) for metric in self.against),
        ):
            if value not in known:
                raise RecipeError(f"sweep {self.name}: {name}={value!r}{nearest(value, known)}")
        if not self.space:
            raise RecipeError(f"sweep {self.name}: space is empty; expected a domain for at least one field")
        if self.num_samples < 1 or self.grace_epochs < 1 or self.reduction_factor < 2:
            raise RecipeError(
                f"sweep {self.name}: found num_samples={self.num_samples}, grace_epochs={self.grace_epochs}, "
                f"reduction_factor={self.reduction_factor}, expected at least 1, 1 and 2"
            )
        if self.num_samples > MOST_TRIALS:
            raise RecipeError(
                f"sweep {self.name}: num_samples={self.num_samples}, expected at most {MOST_TRIALS:,} trials"
            )
        if self.scheduler == "pbt":
            self._check_population()

    def _check_types(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[^\W_][\w .+=,-]*", self.name):
            raise RecipeError(
                f"sweep: name={ascii(self.name)[:_LONGEST_NAME]}: is part of a folder's name; expected letters, "
                "digits, and - _ . + = , or spaces behind the first one"
            )
        if len(self.name.encode()) > _LONGEST_NAME:
            raise RecipeError(f"sweep: name has more than {_LONGEST_NAME} bytes, but is part of a folder's name")
        texts, whole = "a tuple of texts, such as ('epochs=5',)", "a whole number below 2 ** 63"
        expected: dict[str, tuple[bool, str]] = {
            "recipe": (isinstance(self.recipe, (str, Path, Recipe)), "a recipe, its name, or the path of its file"),
            "space": (isinstance(self.space, Mapping), "a dictionary of domains by field"),
            "fields": (_are_texts(self.fields), texts),
            "against": (_are_texts(self.against), texts),
            **{name: (isinstance(getattr(self, name), str), "a text") for name in ("metric", "searcher", "scheduler")},
            **{name: (_is_whole(getattr(self, name)), whole) for name in _WHOLE},
        }
        for name, (is_right, words) in expected.items():
            if not is_right:
                kind = type(getattr(self, name)).__name__
                raise RecipeError(f"sweep {self.name}: {name}: found a value of type {kind}, expected {words}")

    def _check_population(self) -> None:
        if self.searcher == "tpe":
            raise RecipeError(
                f"sweep {self.name}: searcher='tpe' learns from trials that have ended, but a population (scheduler="
                "'pbt') begins with all of its members: set searcher='random'"
            )
        if self.num_samples < 2 or self.perturb_every_epochs < 1:
            raise RecipeError(
                f"sweep {self.name}: found num_samples={self.num_samples}, perturb_every_epochs="
                f"{self.perturb_every_epochs}, expected with scheduler='pbt' at least 2 and 1"
            )

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether the metric is to be small or large."""
        return "max" if self.measures[self.judged_by].higher_is_better else "min"

    def base(self) -> Recipe:
        """Return the recipe whose fields are searched."""
        return self.recipe if isinstance(self.recipe, Recipe) else load_recipe(self.recipe)


_WHOLE = ("num_samples", "grace_epochs", "reduction_factor", "perturb_every_epochs", "seed")


def _are_texts(value: object) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(each, str) for each in value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def sweeps_folder() -> Path:
    """Return the folder of the shipped searches."""
    return Path(__file__).resolve().parents[2] / "experiments" / "sweeps"


def shipped_sweeps() -> dict[str, Callable[[], Sweep]]:
    """Return the functions of all searches in `experiments/sweeps`, by name."""
    found: dict[str, Callable[[], Sweep]] = {}
    for path in sorted(sweeps_folder().glob("[!_]*.py")):
        found.update(import_file(path).SWEEPS)
    return found


def load_sweep(which: str) -> Sweep:
    """Return the search that a word on the command line names.

    Args:
        which: name of a shipped search, or path of a Python file that defines ``sweep()``.

    Raises:
        RecipeError: it does not exist, does not import, or does not describe a search.
    """
    if not which.endswith(".py"):
        known = shipped_sweeps()
        if which not in known:
            raise RecipeError(f"sweep {which!r} does not exist{nearest(which, known)}")
        return known[which]()
    path = absolute(which, "SWEEP", RecipeError)
    if kind_of(path, "SWEEP", RecipeError) != "file":
        raise RecipeError(f"{path}: there is no such file")
    path = path.resolve()
    function = getattr(import_file(path), "sweep", None)
    if not callable(function):
        raise RecipeError(f"{path}: defines no function sweep(); expected `def sweep() -> Sweep`")
    try:
        found = function()
    except (Exception, SystemExit) as error:
        raise file_error(path, "sweep() failed", error) from error
    if not isinstance(found, Sweep):
        raise RecipeError(f"{path}: sweep() returned {type(found).__name__}, expected engine.Sweep")
    return found
