"""The baselines with their best settings, which are found by running them before anything else is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.benchmarking.baseline_cases import VARIANTS, BaselineCases, Choice, ChoiceGroup, uneven
from engine.benchmarking.baselines.launch import CaseFailed, Processes
from engine.benchmarking.cases import Case, CaseGroup
from engine.benchmarking.machine_load import LoadMeter
from engine.benchmarking.schedules import SCHEDULES
from engine.benchmarking.settings_search import Attempt, Ran, Search, Settings, SettingsSearch
from engine.benchmarking.simulation import MICRO_BATCHES
from engine.benchmarking.stage_cuts import cuts_around, stage_bounds
from engine.benchmarking.starting import SECONDS_OF_FIRST_STEP, SECONDS_TO_START, Starter

_BLOCK_ROUNDS = 5
# Of slow steps one says enough.
_STEPS, _SLOW_SECONDS = 3, 3.0


class TunedCases:
    """Searches the best settings of each baseline.

    Args:
        starter: of processes.
        others: the baselines.
        say: told what is being done.

    Attributes:
        blocks: by number of micro-batches, seconds of each block on one of them; 1 is the whole batch. Empty where they
            could not be timed.
        blocks_others: share of a core that other processes used meanwhile; None where this machine does not tell.
        searches: what was tried, of baselines with anything to choose.
        left_out: reasons, by what is not measured, beside those of the baselines themselves.
    """

    def __init__(self, starter: Starter, others: BaselineCases, say: Callable[[str], None]) -> None:
        self._starter, self._others, self._say = starter, others, say
        self.blocks: dict[int, list[float]] = {}
        self.blocks_others: float | None = None
        self.searches: list[Search] = []
        self.left_out: dict[str, str] = {}

    def time_blocks(self, device: str) -> None:
        """Time the blocks of the network in a process of its own, if any baseline can be measured."""
        if not self._others.blocks:
            return
        images = self._starter.images
        parts = sorted({1, *VARIANTS, *MICRO_BATCHES})
        parts = [count for count in parts if not uneven(images.batches.batch_size, count)]
        self._say("timing the blocks of the network")
        cases = {"blocks": {"parts": parts}}
        threads = images.recipe.numerics.threads
        processes = self._starter.start("block_times", images.recipe, (device,), cases, threads, {})
        try:
            processes.ask(None, SECONDS_TO_START)
            request = {"do": "run", "case": "blocks", "steps": _BLOCK_ROUNDS}
            meter = LoadMeter(processes.ids)
            (answer,) = processes.ask(request, 2 * SECONDS_OF_FIRST_STEP)
            self.blocks_others = meter.result().others
            self.blocks = {int(count): seconds for count, seconds in answer["blocks"].items()}
        except CaseFailed as failed:
            self.left_out["times of the blocks, which cuts and the simulation of pipelines begin from"] = str(failed)
        finally:
            processes.close()

    def tuned(self, group: ChoiceGroup) -> CaseGroup | None:
        """Return a group's baselines with their best settings; None if none of them can run."""
        served = _Served(self._starter, group, sum(self.blocks.get(1, ())))
        cases: list[Case] = []
        try:
            for choice in group.choices:
                cases += self._cases(choice, served)
        finally:
            served.close()
        return CaseGroup(group.kind, tuple(cases), group.devices, group.recipe) if cases else None

    def _cases(self, choice: Choice, served: _Served) -> list[Case]:
        is_pipeline = "schedule" in choice.starts[0]
        starts = [self._begun(start, choice.workers) if is_pipeline else start for start in choice.starts]
        if len(starts) == 1 and not is_pipeline:
            return [self._case(choice, starts[0])]
        self._say(f"searching the best settings of {choice.name}")

        def run(settings: Settings, check: bool) -> Ran:
            self._say(f"trying {choice.name}: {in_words(settings, self._others.blocks)}")
            return served.run(settings, check)

        found = SettingsSearch(choice.name, starts, _around if is_pipeline else lambda settings: (), run).search()
        self.searches.append(found)
        self._note_failures(choice, starts, found.attempts)
        chosen = [found.chosen, found.leanest]
        settings = [each.settings for each in chosen if each is not None]
        return [self._case(choice, each) for index, each in enumerate(settings) if each not in settings[:index]]

    def _begun(self, start: Settings, workers: int) -> Settings:
        stages = workers * SCHEDULES[start["schedule"]].stages_per_worker
        seconds = self.blocks.get(start["micro_batches"], [1.0] * len(self._others.blocks))
        return {**start, "bounds": stage_bounds(seconds, stages)}

    def _note_failures(self, choice: Choice, starts: Sequence[Settings], attempts: Sequence[Attempt]) -> None:
        ran = {_short(attempt.settings, choice) for attempt in attempts if not attempt.failed}
        for attempt in attempts:
            words = _short(attempt.settings, choice)
            # A neighbour may run where the start could not.
            if attempt.failed and attempt.settings in starts and words not in ran:
                self.left_out[words] = attempt.failed

    def _case(self, choice: Choice, settings: Settings) -> Case:
        variant = settings.get("micro_batches", settings.get("chunks"))
        words = in_words(settings, self._others.blocks)
        name = _short(settings, choice)
        return Case(name, choice.family, choice.workers, choice.threads, None, variant, settings, chosen=words)


class _Served:
    """Processes that try settings of a group: started when they are needed, anew if settings ended them."""

    def __init__(self, starter: Starter, group: ChoiceGroup, step: float) -> None:
        self._starter, self._group = starter, group
        self._steps = 1 if step > _SLOW_SECONDS else _STEPS
        # Schedules may be slower than the network alone, but not without end.
        self._patience = 60 + 50 * step * (self._steps + 3) if step else SECONDS_OF_FIRST_STEP
        if group.recipe.numerics.compile:
            # Each attempt compiles its stages anew, and the blocks were timed as they are written.
            self._patience = max(self._patience, SECONDS_OF_FIRST_STEP)
        self._processes: Processes | None = None

    def run(self, settings: Settings, check: bool) -> Ran:
        """As `settings_search.Run`."""
        request = {"do": "attempt", "settings": settings, "steps": self._steps, "check": check}
        try:
            if self._processes is None:
                group = self._group
                threads = group.choices[0].threads
                self._processes = self._starter.start(group.kind, group.recipe, group.devices, {}, threads, {})
                self._processes.ask(None, SECONDS_TO_START)
            meter = LoadMeter(self._processes.ids)
            answers = self._processes.ask(request, self._patience)
            others = meter.result().others
        except CaseFailed:
            # Whatever was on its way between them would reach those that are tried next.
            self.close()
            raise
        wrong = next((why for answer in answers if (why := answer.get("refused") or answer.get("wrong"))), "")
        if wrong:
            raise CaseFailed(wrong, False)
        kept = [answer["kept"] for answer in answers if "kept" in answer]
        return Ran(max(answer["seconds"] for answer in answers), max(kept, default=None), others)

    def close(self) -> None:
        """End the processes, if any are there."""
        if self._processes is not None:
            self._processes.close()
            self._processes = None


def _around(settings: Settings) -> list[Settings]:
    return [{**settings, "bounds": bounds} for bounds in cuts_around(settings["bounds"])]


def _short(settings: Settings, choice: Choice) -> str:
    """Return the name of a case."""
    if "chunks" in settings:
        first, comma, threads = choice.name.partition(", ")
        return f"{first}, {settings['chunks']} chunks{comma}{threads}"
    if "schedule" in settings:
        title = SCHEDULES[settings["schedule"]].title
        return f"{title}, {choice.workers} workers, {settings['micro_batches']} micro-batches"
    return choice.name


def in_words(settings: Mapping[str, Any], blocks: Sequence[str]) -> str:
    """Return settings of a baseline in words.

    Args:
        settings: of a case.
        blocks: names of the network's blocks.
    """
    if "chunks" in settings:
        return f"{settings['chunks']} chunks"
    if "schedule" in settings:
        schedule, bounds = SCHEDULES[settings["schedule"]], settings["bounds"]
        is_one_of_many = len([each for each in SCHEDULES.values() if each.family == schedule.family]) > 1
        title = f"{schedule.title}, " if is_one_of_many else ""
        begin = ", ".join(blocks[start] for start in bounds[1:-1])
        later = "stage 1 begins" if len(bounds) == 3 else "later stages begin"
        return f"{title}{settings['micro_batches']} micro-batches, {later} at {begin}"
    if settings["sharded"]:
        unit = "each block gathered by itself" if settings["by_block"] else "all blocks gathered at once"
        again = ", not divided again before the backward pass" if not settings["reshard"] else ""
        return f"{unit}{again if settings['by_block'] else ''}"
    return f"buckets of {settings['bucket_mib']} MiB"
