"""The cases of a benchmark while they are measured: in turn, in every round once.

While one works the others wait without using a processor, so that a drift of the machine touches all alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from engine.benchmarking.baselines.launch import CaseFailed, Processes
from engine.benchmarking.case_results import CaseResult, best_of
from engine.benchmarking.cases import Case, CaseGroup
from engine.benchmarking.machine_load import LoadMeter
from engine.benchmarking.resident_memory import PINNED, peak_bytes, reset_peak, resident_bytes
from engine.benchmarking.starting import SECONDS_OF_FIRST_STEP, SECONDS_TO_START, Starter
from engine.benchmarking.timeline import Call
from engine.errors import EngineError

_MEMORY_STEPS = 2


class Measuring:
    """All cases while they are measured; a context manager that leaves no process behind.

    Args:
        starter: of processes.
        groups: of cases, in the order of the table.
        left_out: reasons, by what is not measured already.
        say: told what is being done.

    Attributes:
        left_out: the same dictionary; what fails is added to it.
        rows: what was measured, by the name of the case.
    """

    def __init__(
        self, starter: Starter, groups: Sequence[CaseGroup], left_out: dict[str, str], say: Callable[[str], None]
    ) -> None:
        self._starter, self._groups, self._say = starter, groups, say
        self.left_out = left_out
        self.rows: dict[str, CaseResult] = {}
        self._processes: dict[int, Processes] = {}
        self._patience: dict[str, float] = {}

    def __enter__(self) -> Measuring:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for processes in self._processes.values():
            processes.close()
        self._processes.clear()

    def _start(self, group: CaseGroup, cases: Sequence[Case], environment: Mapping[str, str]) -> Processes:
        settings = {case.name: case.settings for case in cases}
        return self._starter.start(group.kind, group.recipe, group.devices, settings, cases[0].threads, environment)

    def prepare(self) -> None:
        """Start all processes, and let each case run its first step."""
        self._say(f"starting {sum(len(group.devices) for group in self._groups)} processes")
        for number, group in enumerate(self._groups):
            self._processes[number] = self._start(group, group.cases, {})
        for number, group in enumerate(self._groups):
            try:
                self._processes[number].ask(None, SECONDS_TO_START)
            except CaseFailed as failed:
                for case in group.cases:
                    self._leave_out(case, failed)
        for number, case in self._each():
            self._say(f"first step: {case.name}")
            with self._leaving_out(case, number):
                answers = self._processes[number].ask({"do": "prepare", "case": case.name}, SECONDS_OF_FIRST_STEP)
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
        answers = processes.ask(request, self._patience.get(case.name, SECONDS_OF_FIRST_STEP + steps * 60))
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
            processes.ask(None, SECONDS_TO_START)
            answers = processes.ask({"do": "prepare", "case": case.name}, SECONDS_OF_FIRST_STEP)
            workers = [process for answer in answers for process in answer["processes"]]
            before = [resident_bytes(process) for process in workers]
            if not all(map(reset_peak, workers)):
                return None
            processes.ask({"do": "run", "case": case.name, "steps": _MEMORY_STEPS}, SECONDS_OF_FIRST_STEP)
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
