"""How fast is a recipe, and how much memory does it need, beside other ways of training the same network?

All ways run in turn, in every round once, so that a drift of the machine touches all alike; while one works the others
wait without using a processor. Medians over rounds are compared, ratios are formed round by round.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from engine.errors import EngineError, PlanError, RecipeError
from engine.planning.machine_load import LoadMeter
from engine.planning.measure_batches import Images, read_images
from engine.planning.measure_result import Measurement
from engine.planning.measure_rows import Row, best_of, find
from engine.planning.measure_simulation import simulate
from engine.planning.measure_ways import Machine, OwnWays, Way, WayGroup
from engine.planning.peer_ways import PEERS, PeerWays, check_peers
from engine.planning.peers.job import Job
from engine.planning.peers.processes import Processes, WayFailed
from engine.planning.resident_memory import PINNED, peak_bytes, reset_peak, resident_bytes
from engine.planning.timeline import Call
from engine.recipes import Plan, Recipe, with_absolute_paths

_SECONDS_TO_START = 300.0
_SECONDS_OF_FIRST_STEP = 900.0
_MOST_STEPS = 200
_MEMORY_STEPS = 2

Say = Callable[[str], None]


def measure(
    recipe: Recipe,
    plan: Plan | None = None,
    ks: Sequence[int] | None = None,
    against: Sequence[str] = tuple(PEERS),
    steps: int = 10,
    rounds: int = 3,
    say: Say = lambda text: None,
) -> Measurement:
    """Measure a recipe beside other ways of training its network, in one run.

    Args:
        recipe: what is trained; its method is cut into each of ``ks`` segments.
        plan: where its learners live on Ray; ``executor=process`` leaves Ray out.
        ks: numbers of segments; 1 and the recipe's own unless given.
        against: which peers, of `PEERS`.
        steps: that are timed of each way in each round.
        rounds: how often each way is timed.
        say: told what is being done.

    Raises:
        RecipeError, PlanError, DataError: the input cannot be used.
        EngineError: end-to-end training, with which all is compared, failed.
    """
    check_peers(against)
    for name, value, most in (("--steps", steps, _MOST_STEPS), ("--rounds", rounds, 1000)):
        if not 1 <= value <= most:
            raise RecipeError(f"{name} {value}: expected 1 to {most}")
    images = read_images(with_absolute_paths(recipe))
    machine = Machine.for_recipe(images.recipe)
    threads = images.recipe.numerics.threads
    if threads > machine.cores and not machine.gpus:
        raise PlanError(f"numerics.threads={threads}, but there are {machine.cores} cores: give at most as many")
    own = OwnWays(images, plan or Plan(), ks, machine)
    peers = PeerWays(images, against, own.worker_counts, machine)
    groups, left_out = [*own.groups, *peers.groups], own.left_out | peers.left_out
    with _Measuring(images, plan or Plan(), groups, left_out, say) as all_ways:
        all_ways.prepare()
        all_ways.time(steps, rounds)
    if not machine.gpus:
        all_ways.measure_resident_memory()
    rows = [row for group in groups for way in group.ways if (row := all_ways.rows.get(way.name))]
    baseline = find(rows, family="end_to_end", threads=threads)
    assert baseline is not None
    simulated = simulate(baseline, [row for row in rows if row.way.family in ("process", "end_to_end")])
    return Measurement(
        images.recipe,
        images.described,
        images.batches.batch_size,
        machine,
        steps,
        rows,
        baseline,
        simulated,
        all_ways.left_out,
    )


class _Measuring:
    """All ways while they are measured; a context manager that leaves no process behind."""

    def __init__(
        self, images: Images, plan: Plan, groups: Sequence[WayGroup], left_out: dict[str, str], say: Say
    ) -> None:
        self._images, self._plan, self._groups, self._say = images, plan, groups, say
        self.left_out = left_out
        self.rows: dict[str, Row] = {}
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

    def _start(self, group: WayGroup, ways: Sequence[Way], environment: Mapping[str, str]) -> Processes:
        threads = ways[0].threads
        job = Job(
            group.kind,
            group.recipe,
            self._plan,
            self._images.facts,
            self._file,
            {way.name: way.settings for way in ways},
            workers=len(group.devices),
        )
        counts = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        return Processes(job, group.devices, {**counts, **environment})

    def prepare(self) -> None:
        """Start all processes, and let each way run its first step."""
        self._say(f"starting {sum(len(group.devices) for group in self._groups)} processes")
        for number, group in enumerate(self._groups):
            self._processes[number] = self._start(group, group.ways, {})
        for number, group in enumerate(self._groups):
            try:
                self._processes[number].ask(None, _SECONDS_TO_START)
            except WayFailed as failed:
                for way in group.ways:
                    self._leave_out(way, failed)
        for number, way in self._each():
            self._say(f"first step: {way.name}")
            with self._leaving_out(way, number):
                answers = self._processes[number].ask({"do": "prepare", "way": way.name}, _SECONDS_OF_FIRST_STEP)
                row = self.rows[way.name] = Row(way)
                for answer in answers:
                    row.weights |= answer["weights"]
                    row.memory |= answer["memory"]
                    row.together += answer.get("together", [])
                    row.first_loss |= {n: loss for n, loss in answer["first_loss"].items() if loss is not None}
        self._check_weights()

    def _check_weights(self) -> None:
        """Make sure that all ways that train one network started from the same weights."""
        first = next(row.weights for row in self.rows.values() if row.way.family == "end_to_end")
        for row in self.rows.values():
            if set(row.weights) == set(first):
                assert row.weights == first, f"{row.way.name} started from other weights"

    def time(self, steps: int, rounds: int) -> None:
        """Time every way once in every round."""
        for number_of_round in range(rounds):
            for number, way in self._each():
                self._say(f"round {number_of_round + 1} of {rounds}: {way.name}")
                with self._leaving_out(way, number):
                    self._time(way, self._processes[number], steps)

    def _time(self, way: Way, processes: Processes, steps: int) -> None:
        meter = LoadMeter(processes.ids)
        request = {"do": "run", "way": way.name, "steps": steps}
        answers = processes.ask(request, self._patience.get(way.name, _SECONDS_OF_FIRST_STEP + steps * 60))
        row = self.rows[way.name]
        row.loads.append(meter.result())
        seconds = max(answer["seconds"] for answer in answers)
        # A machine may become much slower than it was, but not without end.
        self._patience[way.name] = 60 + 50 * seconds * (steps + 20)
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
        """Run the ways that are shown once more, each alone, with an allocator that gives back what is freed."""
        self._end()
        shown = {row.way.name for row in best_of(list(self.rows.values()))}
        waiting = [(group, way) for group in self._groups for way in group.ways if way.name in shown]
        for number, (_, way) in enumerate(waiting):
            # The next ones start meanwhile: nothing is timed here.
            for later in range(number, min(number + 2, len(waiting))):
                if later not in self._processes:
                    self._processes[later] = self._start(waiting[later][0], [waiting[later][1]], PINNED)
            self._say(f"resident memory: {way.name}")
            self.rows[way.name].resident_bytes = self._resident(self._processes[number], way)

    def _resident(self, processes: Processes, way: Way) -> int | None:
        """Return the bytes, of the process that needs most; None where they cannot be measured."""
        try:
            processes.ask(None, _SECONDS_TO_START)
            answers = processes.ask({"do": "prepare", "way": way.name}, _SECONDS_OF_FIRST_STEP)
            workers = [process for answer in answers for process in answer["processes"]]
            before = [resident_bytes(process) for process in workers]
            if not all(map(reset_peak, workers)):
                return None
            processes.ask({"do": "run", "way": way.name, "steps": _MEMORY_STEPS}, _SECONDS_OF_FIRST_STEP)
            peaks = [peak_bytes(process) for process in workers]
            pairs = zip(peaks, before, strict=True)
            return max((peak - base for peak, base in pairs if peak is not None and base is not None), default=None)
        except WayFailed:
            return None
        finally:
            processes.close()

    def _each(self) -> Iterator[tuple[int, Way]]:
        """Yield the ways that are still measured when their turn comes, with the number of their group."""
        for number, group in enumerate(self._groups):
            for way in group.ways:
                if way.name not in self.left_out:
                    yield number, way

    @contextlib.contextmanager
    def _leaving_out(self, way: Way, number: int) -> Iterator[None]:
        """Go on without a way that fails inside the block, and without all of its group if that is gone."""
        try:
            yield
        except WayFailed as failed:
            gone = self._groups[number].ways if failed.is_over else (way,)
            for each in gone:
                self._leave_out(each, failed)

    def _leave_out(self, way: Way, failed: WayFailed) -> None:
        if way.family == "end_to_end":
            raise EngineError(f"{way.name}, with which all is compared: {failed}") from failed
        self.left_out[way.name] = str(failed)
        self.rows.pop(way.name, None)
