"""What the user sees: plain lines in a log, a table on a terminal, and a terminal that works afterwards."""

from __future__ import annotations

import io
import math
import re
import threading
from collections.abc import Callable

import pytest
import rich.console

from engine.tasks import ACCURACY
from engine.tracking import Record, open_console
from engine.tracking.live import LiveConsole
from engine.tracking.plain import PlainConsole, evaluation_lines
from engine.tracking.progress import Progress
from engine.tracking.screen import Screen

MadeUp = Callable[..., list[Record]]
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def steps_of(records: list[Record]) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = {}
    for record in records:
        found.setdefault(record.step, []).append(record)
    return found


def drawn(progress: Progress, width: int, now: float = 0.0) -> str:
    stream = io.StringIO()
    rich.console.Console(file=stream, width=width, color_system=None).print(
        Screen(progress, threading.Lock(), lambda: now)
    )
    return stream.getvalue()


def test_the_table_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(open_console(Terminal(), quiet=False), LiveConsole)
    assert isinstance(open_console(Terminal(), quiet=True), PlainConsole)
    assert isinstance(open_console(io.StringIO(), quiet=False), PlainConsole)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_console(Terminal(), quiet=False), PlainConsole)


def test_plain_lines_come_at_most_every_few_seconds_and_for_each_evaluation(made_up_run: MadeUp) -> None:
    stream, clock = io.StringIO(), Clock()
    with PlainConsole(stream, clock=clock) as console:
        console.start("InfoPro", ["segment0", "segment1"], 30, 0, ACCURACY)
        for step, records in steps_of(made_up_run(2, epochs=3, steps_per_epoch=10)).items():
            clock.now += 1.0
            console.update(step, records[0].epoch, records)
        console.finish(["done"])
    lines = stream.getvalue().splitlines()
    assert lines[0] == "InfoPro: 2 learners (segment0, segment1), 30 steps"
    assert lines[-1] == "done"
    told = [int(found[1]) for line in lines if (found := re.search(r"step (\d+)/30", line))]
    assert told == [1, 6, 11, 16, 21, 26, 30]
    assert [line for line in lines if "test accuracy" in line] == [
        "epoch 0  step 10  test accuracy 28.33 %",
        "epoch 1  step 20  test accuracy 56.67 %",
        "epoch 2  step 30  test accuracy 85.00 %",
    ]
    sixteenth = next(line for line in lines if "step 16/30 (53 %)" in line)
    assert "loss segment0 0.8604, segment1 0.9604" in sixteenth
    assert "accuracy segment0 48.00 %, segment1 48.00 %" in sixteenth
    assert "1,000 images/s" in sixteenth and "memory up to 1.00 GiB" in sixteenth and sixteenth.endswith("14 s left")
    assert all(line.isascii() for line in lines)


def test_plain_lines_of_many_learners_stay_short_and_name_the_broken_one() -> None:
    stream = io.StringIO()
    console = PlainConsole(stream, clock=Clock())
    names = [f"segment{index}" for index in range(16)]
    console.start("title", names, 10, 0, ACCURACY)
    console.update(1, 0, [Record(0, 0, 1, name, "train", "loss/total", float(i)) for i, name in enumerate(names)])
    assert "loss 0.0000 to 15.0000 over 16 learners" in stream.getvalue()
    later = {name: math.nan if name == "segment3" else float(i) for i, name in enumerate(names)}
    console.update(10, 0, [Record(0, 0, 10, name, "train", "loss/total", value) for name, value in later.items()])
    assert "loss 0.0000 to 15.0000 over 15 learners, not finite in segment3" in stream.getvalue()


def test_quiet_keeps_messages_and_summary(made_up_run: MadeUp) -> None:
    stream = io.StringIO()
    with open_console(stream, quiet=True) as console:
        console.message("resumed from step 4")
        console.start("title", ["a"], 3, 0, ACCURACY)
        console.update(1, 0, made_up_run(1))
        console.finish(["accuracy 91 %", "runs/x"])
    assert stream.getvalue() == "resumed from step 4\naccuracy 91 %\nruns/x\n"


def test_evaluations_of_a_cohort_name_each_peer() -> None:
    def measured(learner: str | None, split: str, value: float, name: str = "accuracy") -> Record:
        return Record(0.0, 2, 7, learner, split, name, value)

    records = [
        measured("peer0", "test", 0.5),
        measured("ensemble", "test", 0.625),
        measured("ensemble", "test", 0.25, "accuracy_gap"),
        measured("ensemble", "test", 0.125, "kl_between_peers"),
        measured("peer1", "test", 0.25),
        measured("peer0", "test", 1.5, "loss"),
    ]
    assert evaluation_lines([*records, measured("peer0", "validation", math.nan)], ACCURACY) == [
        "epoch 2  step 7  test accuracy ensemble 62.50 % (peer0 50.00 %, peer1 25.00 %)  gap 25.00 points  "
        "KL between peers 0.1250 nats",
        "epoch 2  step 7  validation accuracy peer0 nan %",
    ]
    many = [measured(f"peer{index}", "test", index / 8) for index in range(8)]
    assert evaluation_lines([*many, records[1]], ACCURACY) == [
        "epoch 2  step 7  test accuracy ensemble 62.50 % (0.00 % to 87.50 % over 8 peers)"
    ]
    assert evaluation_lines([measured("peer0", "train", 0.5), measured("peer0", "test", 1.0, "loss")], ACCURACY) == []


def test_plain_lines_say_who_has_left(made_up_cohort: MadeUp) -> None:
    stream, clock = io.StringIO(), Clock()
    with PlainConsole(stream, clock=clock) as console:
        console.start("DML", ["peer0", "peer1"], 15, 0, ACCURACY)
        for step, records in steps_of(made_up_cohort(2, peer1=7)).items():
            clock.now += 10.0
            console.update(step, records[0].epoch, records)
    told = [line for line in stream.getvalue().splitlines() if "loss" in line]
    assert len(told) == 15
    assert "loss peer0 0.9831, peer1 1.0831  accuracy peer0 42.00 %, peer1 42.00 %" in told[6]
    assert "loss peer0 0.8604, peer1 left  accuracy peer0 48.00 %, peer1 left" in told[7]


@pytest.mark.parametrize("width", [20, 40, 60, 100])
@pytest.mark.parametrize("learners", [1, 3, 16])
def test_the_table_fits_every_width(made_up_run: MadeUp, width: int, learners: int) -> None:
    records = made_up_run(learners)
    progress = Progress("title [bold] :smile:", [f"segment{k}" for k in range(learners)], 15, 0, ACCURACY, 0.0)
    assert "segment0" in drawn(progress, width)
    for step, found in steps_of(records).items():
        progress.advance(step, found[0].epoch, found, float(step))
    text = drawn(progress, width, now=20.0)
    assert all(len(line) <= width for line in text.splitlines())
    assert "title [bold] :smile:" in text
    rows = [line for line in text.splitlines() if line.startswith("segment")]
    assert [row.split()[0] for row in rows] == [f"segment{k}" for k in range(learners)]
    assert "0.3383" in rows[0], "the total loss is what a narrow terminal keeps"
    assert not any("…" in row for row in rows)


def test_a_wide_table_shows_everything(made_up_run: MadeUp) -> None:
    progress = Progress("title", ["segment0", "segment1"], 20, 0, ACCURACY, 0.0)
    for step, found in steps_of(made_up_run(2)).items():
        progress.advance(step, found[0].epoch, found, float(step))
    text = drawn(progress, 100, now=15.0)
    for column in ("step", "loss", "entropy", "accuracy", "images/s", "waiting", "memory"):
        assert column in text
    row = next(line for line in text.splitlines() if line.startswith("segment1"))
    assert row.split() == ["segment1", "15", "0.4383", "0.2707", "90.00", "%", "1,001", "5", "%", "512", "MiB"]
    assert "epoch 2  step 15/20" in text and "75 %" in text
    assert "5.0 s left" in text
    assert "test accuracy 85.00 % (epoch 2)" in text
    assert "learning rate 0" in text
    assert "too narrow" not in text
    assert "too narrow for: step" in drawn(progress, 40)
    assert "no step finished for 45 s" in drawn(progress, 100, now=60.0)


def table_of(records: list[Record], learners: list[str], width: int = 130) -> list[str]:
    progress = Progress("title", learners, 15, 0, ACCURACY, 0.0)
    for step, found in steps_of(records).items():
        progress.advance(step, found[0].epoch, found, float(step))
    return drawn(progress, width).splitlines()


def test_a_cohort_shows_the_test_accuracy_of_each_peer(made_up_cohort: MadeUp) -> None:
    lines = table_of(made_up_cohort(2), ["peer0", "peer1"])
    (header,) = [line for line in lines if line.startswith("learner")]
    assert header.split()[:5] == ["learner", "step", "loss", "entropy", "mimicry"]
    rows = {line.split()[0]: line.split()[1:9] for line in lines if line.startswith(("peer", "ensemble"))}
    assert list(rows) == ["peer0", "peer1", "ensemble"]
    assert rows["peer1"] == ["15", "0.4383", "0.2707", "0.1000", "90.00", "%", "80.00", "%"]
    assert rows["ensemble"][:7] == ["-", "-", "-", "-", "-", "80.00", "%"]
    assert lines[-1] == "test accuracy gap 5.00 points (epoch 2)  test KL between peers 0.2500 nats (epoch 2)"


def test_of_a_grid_each_learner_is_shown_and_its_last_one_has_the_peers_accuracy(made_up_cohort: MadeUp) -> None:
    records = made_up_cohort(2, segments=2)
    names = ["peer0_segment0", "peer1_segment0", "peer0_segment1", "peer1_segment1"]
    for before_the_first_evaluation in (True, False):
        shown = [r for r in records if r.step < 5] if before_the_first_evaluation else records
        rows = [line.split() for line in table_of(shown, names) if line.startswith("peer")]
        assert [row[0] for row in rows] == sorted(names), "learners of a peer stand one below the other"
    assert [row[7:9] for row in rows] == [["-", "1,000"], ["85.00", "%"], ["-", "1,001"], ["80.00", "%"]]


def test_the_table_says_who_has_left(made_up_cohort: MadeUp) -> None:
    lines = table_of(made_up_cohort(3, peer1=7), ["peer0", "peer1", "peer2"])
    assert [line.split("  ")[0] for line in lines if line.startswith("peer")] == ["peer0", "peer1 (left)", "peer2"]


def test_live_console_shows_restores_and_keeps_the_summary(
    made_up_run: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in ("60", "100"):
        monkeypatch.setenv("COLUMNS", width)
        stream = Terminal()
        with LiveConsole(stream) as console:
            console.message("before [x]")
            console.start("InfoPro", ["segment0"], 15, 0, ACCURACY)
            for step, records in steps_of(made_up_run(2)).items():
                console.update(step, records[0].epoch, records)
            console.message("checkpoint [1] " + 80 * "x")
            console.finish(["accuracy 91 %", "runs/x"])
        text = stream.getvalue()
        assert "before [x]" in text and "checkpoint [1] " + 80 * "x" in text
        assert "segment1" in text, "a learner that came late has a row"
        assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)
        assert text.endswith("accuracy 91 %\nruns/x\n")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_terminal_is_restored_after_an_error(error: type[BaseException]) -> None:
    stream = Terminal()
    with pytest.raises(error), LiveConsole(stream) as console:
        console.start("title", ["a"], 10, 0, ACCURACY)
        raise error
    assert stream.getvalue().rindex(SHOW_CURSOR) > stream.getvalue().rindex(HIDE_CURSOR)
    console.close()


def test_results_on_a_standard_output_that_is_no_terminal_stay_there(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveConsole(Terminal()) as console:
        console.start("title", ["a"], 10, 0, ACCURACY)
        print("result")
    assert capsys.readouterr().out == "result\n"
