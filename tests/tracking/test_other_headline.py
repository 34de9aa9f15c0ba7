"""A run that is judged by an error: told, drawn and marked as a number of which less is better."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.tasks import Metric
from engine.tracking import Record, plot_curves
from engine.tracking.plain import PlainConsole
from engine.tracking.scores import axis_label, best_first, format_scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR = Metric("error", higher_is_better=False, is_share=False)


def records(epoch: int, **errors: float) -> list[Record]:
    """Of a team of segments, with a training error of each and, as "test", the error of the whole network."""
    found = [Record(0.0, epoch, 4 * epoch, None, "test", "error", errors.pop("test"))] if "test" in errors else []
    return [*found, *(Record(0.0, epoch, 4 * epoch, name, "train", "error", value) for name, value in errors.items())]


def cohort(epoch: int, **errors: float) -> list[Record]:
    return [Record(0.0, epoch, 4 * epoch, name, "test", "error", value) for name, value in errors.items()]


def drawn(monkeypatch: pytest.MonkeyPatch, measured: list[Record]) -> Figure:
    found: list[Figure] = []
    monkeypatch.setattr("engine.tracking.curves.write_figure", lambda figure, _: found.append(figure))
    plot_curves(measured, Path("nowhere.png"), "title", ERROR)
    return found[0]


def test_lines_of_progress_tell_it() -> None:
    told = io.StringIO()
    console = PlainConsole(told)
    console.start("title", ["segment0"], 8, 0, ERROR)
    console.update(4, 1, records(1, segment0=2.5, test=3.0))
    console.update(8, 2, cohort(2, peer0=2.0, peer1=1.0, ensemble=0.5))
    lines = told.getvalue().splitlines()
    assert "error 2.5000" in lines[1]
    assert lines[2:] == [
        "epoch 1  step 4  test error 3.0000",
        "epoch 2  step 8  test error ensemble 0.5000 (peer0 2.0000, peer1 1.0000)",
    ]


def test_curves_are_drawn_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(monkeypatch, records(1, segment0=2.5, test=3.0) + records(2, segment0=1.5, test=2.0))
    (axes,) = figure.axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[2.5, 1.5], [3.0, 2.0]]  # type: ignore[arg-type]
    assert (axes.get_title(loc="left"), axes.get_ylabel()) == ("error", "error (lower is better)")
    assert [text.get_text() for text in axes.texts] == ["test\n2.0000"]


def test_the_lowest_end_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(monkeypatch, records(1, segment0=2.5, segment1=1.25) + records(2, segment0=1.5, segment1=1.0))
    (text,) = figure.axes[0].texts
    assert text.get_text() == "train\nsegment1 1.0000\nsegment0 1.5000"
    assert text.xy == (2.0, 1.0)  # type: ignore[attr-defined]


def test_a_cohort_has_its_errors_in_the_legend(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(monkeypatch, cohort(1, peer0=2.0, peer1=1.0, ensemble=0.5))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:3] == ["peer0 (test 2.0000)", "peer1 (test 1.0000)", "ensemble (test 0.5000)"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["test error"]


def test_words_and_order() -> None:
    assert format_scores(ERROR, (0.5, 0.75)) == "0.6250 ± 0.1768"
    assert best_first(ERROR, {"a": 2.0, "b": 1.0, "c": 1.0}) == ["b", "c", "a"]
    assert best_first(Metric("skill"), {"a": 2.0, "b": 1.0, "c": 2.0}) == ["a", "c", "b"]
    assert axis_label(Metric("skill"), "test") == "test skill (%)"
    assert axis_label(Metric("miss_rate", higher_is_better=False), "test") == "test miss rate (%, lower is better)"
