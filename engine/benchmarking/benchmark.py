"""A benchmark of a recipe: its speed and memory beside those of other ways of training the same network.

All cases run in turn, in every round once, so that a drift of the machine touches all alike; while one works the others
wait without using a processor. Medians over rounds are compared, ratios are formed round by round.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from engine.benchmarking.baseline_cases import BASELINES, BaselineCases, check_baselines
from engine.benchmarking.baselines.job import Job
from engine.benchmarking.baselines.launch import CaseFailed, Processes
from engine.benchmarking.batches import Images, read_images
from engine.benchmarking.case_results import CaseResult, best_of, find
from engine.benchmarking.cases import Case, CaseGroup, EngineCases, Machine
from engine.benchmarking.machine_load import LoadMeter
from engine.benchmarking.measurement import Measurement
from engine.benchmarking.resident_memory import PINNED, peak_bytes, reset_peak, resident_bytes
from engine.benchmarking.simulation import simulate
from engine.benchmarking.timeline import Call
from engine.errors import EngineError, PlanError, RecipeError
from engine.recipes import Plan, Recipe, with_absolute_paths, with_modelled_cuts

_SECONDS_TO_START = 300.0
_SECONDS_OF_FIRST_STEP = 900.0
_MOST_STEPS = 200
_MEMORY_STEPS = 2

Say = Callable[[str], None]


def measure(
    recipe: Recipe,
    plan: Plan | None = None,
    ks: Sequence[int] | None = None,
    against: Sequence[str] = tuple(BASELINES),
    steps: int = 10,
    rounds: int = 3,
    say: Say = lambda text: None,
) -> Measurement:
    """Measure a recipe beside other ways of training its network, in one run.

    Args:
        recipe: what is trained; its method is cut into each of ``ks`` segments.
        plan: where its learners live on Ray; ``executor=process`` leaves Ray out.
        ks: numbers of segments; 1 and the recipe's own unless given.
        against: which baselines, of `BASELINES`.
        steps: that are timed of each case in each round.
        rounds: how often each case is timed.
        say: told what is being done.

    Raises:
        RecipeError, PlanError, DataError: the input cannot be used.
        EngineError: end-to-end training, with which all is compared, failed.
    """
    check_baselines(against)
    for name, value, most in (("--steps", steps, _MOST_STEPS), ("--rounds", rounds, 1000)):
        if not 1 <= value <= most:
            raise RecipeError(f"{name} {value}: expected 1 to {most}")
    images = read_images(with_absolute_paths(recipe))
    machine = Machine.for_recipe(images.recipe)
    threads = images.recipe.numerics.threads
    if threads > machine.cores and not machine.gpus:
        raise PlanError(f"numerics.threads={threads}, but there are {machine.cores} cores: give at most as many")
    own = EngineCases(images, plan or Plan(), ks, machine, say)
    # Baselines are not cut as the recipe is.
    uncut = dataclasses.replace(images, recipe=with_modelled_cuts(images.recipe))
    others = BaselineCases(uncut, against, own.worker_counts, machine)
    groups, left_out = [*own.groups, *others.groups], own.left_out | others.left_out
    with _Measuring(images, plan or Plan(), groups, left_out, say) as measuring:
        measuring.prepare()
        measuring.time(steps, rounds)
    if not machine.gpus:
        measuring.measure_resident_memory()
    rows = [row for group in groups for case in group.cases if (row := measuring.rows.get(case.name))]
    reference = find(rows, family="end_to_end", threads=threads)
    assert reference is not None
    simulated = simulate(reference, [row for row in rows if row.case.family in ("process", "end_to_end")])
    return Measurement(
        own.recipe,
        images.described,
        images.batches.batch_size,
        machine,
        steps,
        rows,
        reference,
        simulated,
        measuring.left_out,
    )


class _Measuring:
    """All cases while they are measured; a context manager that leaves no process behind."""

    def __init__(
        self, images: Images, plan: Plan, groups: Sequence[CaseGroup], left_out: dict[str, str], say: Say
    ) -> None:
        self._images, self._plan, self._groups, self._say = images, plan, groups, say
        self.left_out = left_out
        self.rows: dict[str, CaseResult] = {}
        self._processes: dict[int, Processes] = {}
        self._patience: dict[str, float] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="local_learning_batches_")
        self._file = str(Path(self._folder.name) / "batches.npz")
        images.batches.write(Path(self._file))

    def __enter__(self) -> _Measuring:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for processes in self._processes.values():
            processes.close()
        self._processes.clear()

    def _start(self, group: CaseGroup, cases: Sequence[Case], environment: Mapping[str, str]) -> Processes:
        threads = cases[0].threads
        job = Job(
            group.kind,
            group.recipe,
            self._plan,
            self._images.facts,
            self._file,
            {case.name: case.settings for case in cases},
            workers=len(group.devices),
        )
        counts = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        return Processes(job, group.devices, {**counts, **environment})

    def prepare(self) -> None:
        """Start all processes, and let each case run its first step."""
        self._say(f"starting {sum(len(group.devices) for group in self._groups)} processes")
        for number, group in enumerate(self._groups):
            self._processes[number] = self._start(group, group.cases, {})
        for number, group in enumerate(self._groups):
            try:
                self._processes[number].ask(None, _SECONDS_TO_START)
            except CaseFailed as failed:
                for case in group.cases:
                    self._leave_out(case, failed)
        for number, case in self._each():
            self._say(f"first step: {case.name}")
            with self._leaving_out(case, number):
                answers = self._processes[number].ask({"do": "prepare", "case": case.name}, _SECONDS_OF_FIRST_STEP)
                row = self.rows[case.name] = CaseResult(case)
                for answer in answers:
                    row.weights |= answer["weights"]
                    row.memory |= answer["memory"]
                    row.together += answer.get("together", [])
                    row.first_loss |= {n: loss for n, loss in answer["first_loss"].items() if loss is not None}
        self._check_weights()

    def _check_weights(self) -> None:
        """Make sure that all cases that train one network started from the same weights."""
        first = next(row.weights for row in self.rows.values() if row.case.family == "end_to_end")
        for row in self.rows.values():
            if set(row.weights) == set(first):
                assert row.weights == first, f"{row.case.name} started from other weights"

    def time(self, steps: int, rounds: int) -> None:
        """Time every case once in every round."""
        for number_of_round in range(rounds):
            for number, case in self._each():
                self._say(f"round {number_of_round + 1} of {rounds}: {case.name}")
                with self._leaving_out(case, number):
                    self._time(case, self._processes[number], steps)

    def _time(self, case: Case, processes: Processes, steps: int) -> None:
        meter = LoadMeter(processes.ids)
        request = {"do": "run", "case": case.name, "steps": steps}
        answers = processes.ask(request, self._patience.get(case.name, _SECONDS_OF_FIRST_STEP + steps * 60))
        row = self.rows[case.name]
        row.loads.append(meter.result())
        seconds = max(answer["seconds"] for answer in answers)
        # A machine may become much slower than it was, but not without end.
        self._patience[case.name] = 60 + 50 * seconds * (steps + 20)
        row.seconds.append(seconds)
        shares = [share for answer in answers for share in answer["waiting"] or ()]
        if shares:
            row.waiting.append(shares)
        used = [answer["device_bytes"] for answer in answers if answer["device_bytes"] is not None]
        row.device_bytes = max([*used, row.device_bytes or 0]) if used else None
        if "busy" in answers[0]:
            row.busy.append(answers[0]["busy"])
            row.calls = {name: [Call(*call) for call in own] for name, own in answers[0]["calls"].items()}

    def measure_resident_memory(self) -> None:
        """Run the cases that are shown once more, each alone, with an allocator that gives back what is freed."""
        self._end()
        shown = {row.case.name for row in best_of(list(self.rows.values()))}
        waiting = [(group, case) for group in self._groups for case in group.cases if case.name in shown]
        for number, (_, case) in enumerate(waiting):
            # The next ones start meanwhile: nothing is timed here.
            for later in range(number, min(number + 2, len(waiting))):
                if later not in self._processes:
                    self._processes[later] = self._start(waiting[later][0], [waiting[later][1]], PINNED)
            self._say(f"resident memory: {case.name}")
            self.rows[case.name].resident_bytes = self._resident(self._processes[number], case)

    def _resident(self, processes: Processes, case: Case) -> int | None:
        """Return the bytes, of the process that needs most; None where they cannot be measured."""
        try:
            processes.ask(None, _SECONDS_TO_START)
            answers = processes.ask({"do": "prepare", "case": case.name}, _SECONDS_OF_FIRST_STEP)
            workers = [process for answer in answers for process in answer["processes"]]
            before = [resident_bytes(process) for process in workers]
            if not all(map(reset_peak, workers)):
                return None
            processes.ask({"do": "run", "case": case.name, "steps": _MEMORY_STEPS}, _SECONDS_OF_FIRST_STEP)
            peaks = [peak_bytes(process) for process in workers]
            pairs = zip(peaks, before, strict=True)
            return max((peak - base for peak, base in pairs if peak is not None and base is not None), default=None)
        except CaseFailed:
            return None
        finally:
            processes.close()

    def _each(self) -> Iterator[tuple[int, Case]]:
        """Yield the cases that are still measured when their turn comes, with the number of their group."""
        for number, group in enumerate(self._groups):
            for case in group.cases:
                if case.name not in self.left_out:
                    yield number, case

    @contextlib.contextmanager
    def _leaving_out(self, case: Case, number: int) -> Iterator[None]:
        """Go on without a case that fails inside the block, and without all of its group if that is gone."""
        try:
            yield
        except CaseFailed as failed:
            gone = self._groups[number].cases if failed.is_over else (case,)
            for each in gone:
                self._leave_out(each, failed)

    def _leave_out(self, case: Case, failed: CaseFailed) -> None:
        if case.family == "end_to_end":
            raise EngineError(f"{case.name}, with which all is compared: {failed}") from failed
        self.left_out[case.name] = str(failed)
        self.rows.pop(case.name, None)
