"""Do the members of a population wait for each other, and does a search that was killed anywhere end as it would have?

Training is replaced by a sum here, so that every place at which a search can be killed is tried.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.search import Searcher

from engine.errors import InputError, PlanError, RunError
from engine.recipes import Recipe
from engine.search import Sweep, Trial, generations
from engine.search.folder import SweepFolder
from engine.search.generations import PopulationQueue
from engine.search.trial import Status

ACCURACY = "validation/accuracy"
STEPS = 10
EPOCHS = 7


class _Killed(Exception):
    pass


class _Lab:
    """A search whose members train by adding up their settings; its notes are on the disk, as ever."""

    def __init__(self, sweep: Sweep, path: Path, slots: int, notes: int = 10**6) -> None:
        self.sweep, self.slots, self._notes = sweep, slots, notes
        self.folder = SweepFolder(sweep, sweep.base(), path, "auto")
        note = self.folder.note

        def counted(trial: Trial) -> None:
            self._notes -= 1
            if self._notes < 0:
                raise _Killed
            note(trial)

        self.folder.note = counted  # type: ignore[method-assign]
        self.told: list[str] = []
        self.most = 0
        self.ends_as: Status = "failed"
        self.tries_again = False
        self.never_fits: int | None = None

    def _begun(self, trial: Trial) -> None:
        trial.status = "running"
        self.folder.note(trial)

    def _refused(self, trial: Trial, error: InputError) -> None:
        trial.status, trial.error = "failed", str(error)
        self.folder.note(trial)

    def _configuration(self, trial: Trial, until: int | None) -> dict[str, Any]:
        if trial.number == self.never_fits:
            raise PlanError("the plan does not fit")
        return {"run": trial.name, "until": until, "from": trial.epochs}

    def _recipe(self, trial: Trial) -> Recipe:
        return self.sweep.base()

    def run(self, fails: dict[int, int] | None = None) -> dict[int, Trial]:
        """Search until all is done; members in `fails` fail in the generation that is given."""
        queue = PopulationQueue(
            self.sweep,
            self.folder,
            STEPS,
            self._recipe,
            self._configuration,
            self._begun,
            self._refused,
            self.told.append,
        )
        running: list[tuple[Trial, int]] = []
        try:
            for number in itertools.count():
                given = queue.suggest(f"t{number}") if len(running) < self.slots else None
                if given == Searcher.FINISHED:
                    lost = any(trial.status == "lost" for trial in self.folder.trials.values())
                    assert not running and (queue.is_empty or lost)
                    return self.folder.trials
                if given is not None:
                    running.append((queue.of_tune[f"t{number}"], given["until"]))
                    self.most = max(self.most, len(running))
                    continue
                # The newest ends first, so that members come in another order with another number of slots.
                trial, until = running.pop()
                self._end(trial, until, fails or {})
                if trial.status == "lost" and self.tries_again:
                    fails = {}
                    queue.try_again(trial)
            raise AssertionError
        finally:
            self.folder.close()

    def _end(self, trial: Trial, until: int, fails: dict[int, int]) -> None:
        if fails.get(trial.number) == trial.generation:
            trial.status = self.ends_as
        else:
            for _ in range(trial.epochs, min(until // STEPS * self.sweep.perturb_every_epochs, EPOCHS)):
                trial.epochs += 1
                before = trial.metrics.get(ACCURACY, 0.0)
                trial.metrics = {ACCURACY: before + trial.settings["optimizer.learning_rate"]}
            trial.status = "finished" if trial.epochs == EPOCHS else "waiting"
        self.folder.note(trial)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Names of the run folders of donors and of those that copied them."""
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(generations, "begin_from", lambda d, recipe, r: found.append((Path(d).name, Path(r).name)))
    return found


@pytest.fixture
def sweep(make_sweep: Callable[..., Sweep]) -> Sweep:
    return make_sweep(
        space={"optimizer.learning_rate": tune.uniform(0.0, 1.0)},
        scheduler="pbt",
        num_samples=5,
        perturb_every_epochs=2,
        fields=(f"epochs={EPOCHS}",),
    )


def _known(trials: dict[int, Trial]) -> Any:
    return copy.deepcopy([trials[number] for number in sorted(trials)])


def test_the_worst_copy_after_every_generation_but_the_last(sweep: Sweep, tmp_path: Path, copies: Any) -> None:
    lab = _Lab(sweep, tmp_path / "s", 2)
    trials = lab.run()
    assert [trial.status for trial in trials.values()] == ["finished"] * 5
    assert {(trial.epochs, trial.generation) for trial in trials.values()} == {(EPOCHS, 3)}
    # Two of five after the epochs 2, 4 and 6; never after 7, the end.
    assert len(copies) == len(lab.told) == 6 and lab.most == 2
    assert [int(name.rpartition("-")[2]) for _, name in copies] == [2, 2, 4, 4, 6, 6]
    assert lab.told[0] == f"{copies[0][1][:10]} copies {copies[0][0]} after epoch 2 and goes on as {copies[0][1]}"
    for trial in trials.values():
        ends = [stage["until_epoch"] for stage in trial.lineage]
        assert ends == sorted(set(ends)) and trial.began_at == (ends[-1] if ends else 0)
        if trial.lineage:
            assert (trial.lineage[-1]["run"], trial.name) in copies
            assert trial.settings != trial.lineage[-1]["settings"]


@pytest.mark.parametrize("slots", [1, 3, 5])
def test_how_many_train_at_once_has_no_influence(sweep: Sweep, tmp_path: Path, copies: Any, slots: int) -> None:
    first = _known(_Lab(sweep, tmp_path / "two", 2).run())
    expected, copies[:] = list(copies), []
    assert _known(_Lab(sweep, tmp_path / "s", slots).run()) == first
    assert copies == expected


def test_killed_anywhere_it_ends_as_it_would_have(sweep: Sweep, tmp_path: Path, copies: Any) -> None:
    expected = _known(_Lab(sweep, tmp_path / "whole", 2).run())
    whole, deaths = list(dict.fromkeys(copies)), 0
    for notes in itertools.count():
        copies.clear()
        path = tmp_path / f"killed-{notes}"
        try:
            _Lab(sweep, path, 2, notes).run()
        except _Killed:
            deaths += 1
        else:
            break
        # And once more a little later.
        with contextlib.suppress(_Killed):
            _Lab(sweep, path, 3, 4).run()
        assert _known(_Lab(sweep, path, 1).run()) == expected, f"killed at note {notes}"
        # What was being copied may be copied twice, to the same place.
        assert set(copies) == set(whole)
    # Five members begin and end in four generations, and turn in three.
    assert deaths == 5 * (2 * 4 + 3)


def test_a_member_that_fails_leaves_the_population(sweep: Sweep, tmp_path: Path, copies: Any) -> None:
    trials = _Lab(sweep, tmp_path / "s", 2).run(fails={0: 0, 3: 2})
    assert [trials[n].status for n in range(5)] == ["failed", "finished", "finished", "failed", "finished"]
    assert not any("trial-0000" in name for pair in copies for name in pair)
    assert not any("trial-0003" in donor or "trial-0003" in own for donor, own in copies[-1:])
    # Of four, four and three members one copies each time.
    assert len(copies) == 3


def test_a_member_that_never_fits_fails_alone(sweep: Sweep, tmp_path: Path, copies: Any) -> None:
    lab = _Lab(sweep, tmp_path / "s", 2)
    lab.never_fits = 1
    trials = lab.run()
    assert [trials[n].status for n in range(5)] == ["finished", "failed", *["finished"] * 3]
    assert trials[1].error == "the plan does not fit"


@pytest.mark.parametrize("generation", [0, 2, 3])
@pytest.mark.parametrize("tries_again", [True, False])
def test_a_member_that_was_lost_changes_nothing(
    sweep: Sweep, tmp_path: Path, copies: Any, generation: int, tries_again: bool
) -> None:
    """Tried again at once, or left to the next start: the others wait for it."""
    expected = _known(_Lab(sweep, tmp_path / "whole", 2).run())
    copied, copies[:] = list(copies), []
    lab = _Lab(sweep, tmp_path / "s", 2)
    lab.ends_as, lab.tries_again = "lost", tries_again
    trials = lab.run(fails={3: generation})
    if not tries_again:
        assert trials[3].status == "lost"
        assert {trial.generation for trial in trials.values()} == {generation}
        trials = _Lab(sweep, tmp_path / "s", 2).run()
    assert _known(trials) == expected
    assert copies == copied


def test_a_population_of_another_size_is_another_search(sweep: Sweep, tmp_path: Path) -> None:
    SweepFolder(sweep, sweep.base(), tmp_path / "s", "auto").close()
    for changes in ({"num_samples": 6}, {"perturb_every_epochs": 3}):
        other = dataclasses.replace(sweep, **changes)  # type: ignore[arg-type]
        with pytest.raises(RunError, match=rf"other {next(iter(changes))}\)"):
            SweepFolder(other, other.base(), tmp_path / "s", "auto")


def test_a_finished_population_has_nothing_to_do(sweep: Sweep, tmp_path: Path, copies: Any) -> None:
    first = _known(_Lab(sweep, tmp_path / "s", 2).run())
    lab = _Lab(sweep, tmp_path / "s", 2, notes=0)
    assert _known(lab.run()) == first and lab.most == 0
