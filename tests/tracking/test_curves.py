"""Pictures of runs: they exist, show something, and survive every odd set of records."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from engine.tasks import ACCURACY
from engine.tracking import Record, plot_curves
from engine.tracking.figures import INK, colours, tints
from engine.tracking.panels import panels
from engine.tracking.series import RunSeries

MadeUp = Callable[..., list[Record]]
RATES = {"peer0": 0.1, "peer1": 1e-3}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def shows(picture: np.ndarray, colour: str) -> bool:
    wanted = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
    return bool((np.abs(picture.astype(int) - wanted).sum(-1) < 12).sum() > 20)


def captured(records: list[Record], path: Path, monkeypatch: pytest.MonkeyPatch) -> Figure:
    """The figure that would be written."""
    found: list[Figure] = []
    monkeypatch.setattr("engine.tracking.curves.write_figure", lambda figure, _: found.append(figure))
    plot_curves(records, path, "title", ACCURACY)
    return found[0]


def panel(records: list[Record], title: str) -> Axes:
    """The panel of this title, drawn alone."""
    for draw in panels(RunSeries(records, ACCURACY)):
        axes = Figure().add_subplot()
        draw(axes)
        if axes.get_title(loc="left") == title:
            return axes
    raise AssertionError(f"there is no panel {title!r}")


def legend_of(figure: Figure) -> dict[str, str]:
    (legend,) = figure.legends
    handles = zip(legend.get_texts(), legend.get_lines(), strict=True)
    return {text.get_text(): str(line.get_color()) for text, line in handles}


@pytest.mark.parametrize("learners", [1, 7, 16])
def test_every_learner_is_seen_in_its_colour(made_up_run: MadeUp, tmp_path: Path, learners: int) -> None:
    path = tmp_path / "new" / "curves.png"
    plot_curves(made_up_run(learners), path, "title with $ and $", ACCURACY)
    picture = pixels(path)
    assert picture.shape[0] > 600 and picture.shape[1] > 1200
    for colour in colours([f"segment{k}" for k in range(learners)]).values():
        assert shows(picture, colour)
    assert [found.name for found in path.parent.iterdir()] == ["curves.png"]


ODD = {
    "nothing": [],
    "one": [Record(0.0, 0, 1, "a", "train", "loss/total", 1.0)],
    "only nan": [
        Record(0.0, 0, 1, "a", "train", name, math.nan) for name in ("loss/total", "accuracy", "memory_bytes")
    ],
    "only infinite": [Record(0.0, 0, 1, "a", "train", "loss/total", math.inf)],
    "only the team": [Record(0.0, 1, 5, None, "test", "accuracy", 0.5)],
    "step zero": [Record(0.0, 0, 0, None, "test", "accuracy", 0.1)],
    "unknown names": [Record(0.0, 0, 1, "a", "train", "something/else", 1.0)],
    "zero and negative losses": [Record(0.0, 0, s, "a", "train", "loss/total", 1.0 - s) for s in range(1, 4)],
    "no memory": [Record(0.0, 0, 1, "a", "train", "memory_bytes", 0.0)],
    "tiny to huge": [Record(0.0, 0, s, "a", "train", "loss/total", 10.0 ** (8 * s)) for s in range(-3, 4)],
    "ended with nan": [Record(0.0, 0, s, "a", "train", "loss/total", 1.0 if s < 300 else math.nan) for s in range(400)],
    "late": [
        *[Record(0.0, 0, s, "a", "train", "accuracy", 0.5) for s in range(1, 5)],
        Record(0.0, 0, 4, "b_$x$_", "validation", "accuracy", 0.7),
    ],
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("error")
def test_odd_records_are_drawn_too(tmp_path: Path, name: str) -> None:
    plot_curves(ODD[name], tmp_path / "curves.png", name, ACCURACY)
    assert len(np.unique(pixels(tmp_path / "curves.png").reshape(-1, 3), axis=0)) > 5


def test_a_failed_drawing_leaves_the_old_picture(made_up_run: MadeUp, tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    path.write_text("old")
    with pytest.raises(TypeError):
        plot_curves([Record(0.0, 0, 1, "a", "train", "loss/total", None)], path, "title", ACCURACY)  # type: ignore[arg-type]
    assert path.read_text() == "old"


def test_colours_differ_from_each_other_and_from_the_teams() -> None:
    for count in range(1, 33):
        given = colours([str(index) for index in range(count)])
        assert len({*given.values(), "#222222"}) == count + 1


def test_tints_end_with_the_colour_itself() -> None:
    assert tints("#0072b2", 1) == ["#0072b2"]
    assert tints("#0072b2", 3) == ["#80b8d8", "#4095c5", "#0072b2"]


def test_a_cohort_is_seen_with_its_ensemble_and_how_far_the_peers_are_apart(
    made_up_cohort: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = made_up_cohort(3)
    figure = captured(records, tmp_path / "curves.png", monkeypatch)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:5] == [
        "test accuracy",
        "training accuracy",
        "KL between peers",
        "accuracy gap between peers",
        "disagreement between peers",
    ]
    assert "loss: mimicry" in titles
    own = colours(["peer0", "peer1", "peer2"])
    assert legend_of(figure) == {
        "peer0 (test 85.00 %)": own["peer0"],
        "peer1 (test 80.00 %)": own["peer1"],
        "peer2 (test 75.00 %)": own["peer2"],
        "ensemble (test 80.00 %)": INK,
        "test": "#9a9a9a",
    }
    drawn = {str(line.get_color()): line for line in figure.axes[0].get_lines()}
    assert set(drawn) == {INK, *own.values()}
    assert np.allclose(drawn[own["peer1"]].get_ydata(), [100 * (0.85 * share - 0.05) for share in (1 / 3, 2 / 3, 1)])
    assert drawn[INK].get_linewidth() > drawn[own["peer1"]].get_linewidth()
    (divergence,) = figure.axes[2].get_lines()
    assert np.allclose(divergence.get_ydata(), 0.25) and divergence.get_color() == INK
    (gap,) = figure.axes[3].get_lines()
    assert np.allclose(gap.get_ydata(), 5.0), "in percentage points"


def test_learners_of_a_peer_are_tints_of_its_colour(
    made_up_cohort: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = made_up_cohort(2, segments=2)
    legend = legend_of(captured(records, tmp_path / "curves.png", monkeypatch))
    blue, red = colours(["peer0", "peer1"]).values()
    assert list(legend.items())[:6] == [
        ("peer0 (test 85.00 %)", blue),
        ("peer0_segment0", tints(blue, 2)[0]),
        ("peer0_segment1", blue),
        ("peer1 (test 80.00 %)", red),
        ("peer1_segment0", tints(red, 2)[0]),
        ("peer1_segment1", red),
    ]
    assert {str(line.get_color()) for line in panel(records, "test accuracy").get_lines()} == {INK, blue, red}
    assert len({line.get_color() for line in panel(records, "total loss").get_lines()}) == 4


def test_a_peer_that_left_is_drawn_as_far_as_it_was_trained(
    made_up_cohort: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = made_up_cohort(2, epochs=4, peer1=12)
    legend = legend_of(captured(records, tmp_path / "curves.png", monkeypatch))
    assert "peer1 (left)" in legend and "peer0 (test 85.00 %)" in legend
    lines = {line.get_color(): line for line in panel(records, "test accuracy").get_lines()}
    assert list(lines[legend["peer1 (left)"]].get_xdata()) == [1.0, 2.0]
    assert list(lines[INK].get_xdata()) == [1.0, 2.0, 3.0, 4.0]


def test_both_evaluation_splits_of_a_cohort_are_told_apart(made_up_cohort: MadeUp) -> None:
    axes = panel(made_up_cohort(2, splits=("validation", "test")), "validation and test accuracy")
    assert sorted(line.get_linestyle() for line in axes.get_lines()) == 3 * ["-"] + 3 * ["--"]


@pytest.mark.parametrize(("peers", "segments"), [(2, 1), (2, 4), (40, 1)])
def test_the_legend_is_whole_and_on_nothing_else(
    made_up_cohort: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peers: int, segments: int
) -> None:
    figure = captured(made_up_cohort(peers, segments, epochs=1), tmp_path / "curves.png", monkeypatch)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0
    for axes in figure.axes:
        around = axes.get_tightbbox()
        assert around is not None and not around.overlaps(box), axes.get_title(loc="left")


def test_learning_rates_of_different_size_are_all_seen() -> None:
    rates = [Record(0.0, 0, s, name, "train", "learning_rate", r) for s in (1, 2) for name, r in RATES.items()]
    assert panel(rates, "learning rate").get_yscale() == "log"
    assert panel(rates[:1], "learning rate").get_yscale() == "linear"


def test_words_of_many_bars_do_not_lie_on_one_another(made_up_cohort: MadeUp) -> None:
    axes = panel(made_up_cohort(40, epochs=1), "peak memory")
    assert len(axes.patches) == 40
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["peer0", "peer3"]
