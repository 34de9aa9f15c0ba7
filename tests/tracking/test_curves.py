"""Pictures of runs: they exist, show something, and survive every odd set of records."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.tracking import Record, plot_curves
from engine.tracking.curves import _Run, _steps_per_epoch
from engine.tracking.figures import colours

MadeUp = Callable[..., list[Record]]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def shows(picture: np.ndarray, colour: str) -> bool:
    wanted = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
    return bool((np.abs(picture.astype(int) - wanted).sum(-1) < 12).sum() > 20)


@pytest.mark.parametrize("learners", [1, 7, 16])
def test_every_learner_is_seen_in_its_colour(made_up_run: MadeUp, tmp_path: Path, learners: int) -> None:
    path = tmp_path / "new" / "curves.png"
    plot_curves(made_up_run(learners), path, "title with $ and $")
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
    plot_curves(ODD[name], tmp_path / "curves.png", name)
    assert len(np.unique(pixels(tmp_path / "curves.png").reshape(-1, 3), axis=0)) > 5


def test_a_failed_drawing_leaves_the_old_picture(made_up_run: MadeUp, tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    path.write_text("old")
    with pytest.raises(TypeError):
        plot_curves([Record(0.0, 0, 1, "a", "train", "loss/total", None)], path, "title")  # type: ignore[arg-type]
    assert path.read_text() == "old"


@pytest.mark.parametrize("first_epoch", [0, 1])
def test_steps_become_epochs_however_epochs_are_counted(first_epoch: int) -> None:
    def at(epoch: int, step: int) -> Record:
        return Record(0.0, epoch + first_epoch, step, None, "train", "accuracy", 0.0)

    assert _steps_per_epoch([at(0, 5), at(0, 10), at(1, 15), at(1, 20), at(2, 23)]) == 10.0
    assert _steps_per_epoch([at(0, 0)]) == 1.0
    assert _steps_per_epoch([]) == 1.0


def test_long_series_are_thinned_to_means() -> None:
    records = [Record(0.0, 0, s, "a", "train", "loss/total", math.nan if s == 7 else s % 2) for s in range(1, 10_001)]
    (series,) = _Run(records)._series("loss/total")
    epochs, values = series.thinned()
    assert len(epochs) == 120
    assert epochs == sorted(epochs)
    assert np.allclose(values, 0.5, atol=0.02)


def test_a_total_of_one_term_gets_no_second_panel() -> None:
    same = [Record(0.0, 0, 1, "a", "train", name, 1.0) for name in ("loss/cross_entropy", "loss/total")]
    assert _Run(same)._losses() == ["loss/cross_entropy"]
    other = [*same, Record(0.0, 0, 2, "a", "train", "loss/total", 2.0)]
    assert _Run(other)._losses() == ["loss/total", "loss/cross_entropy"]


def test_colours_differ_from_each_other_and_from_the_teams() -> None:
    for count in range(1, 33):
        given = colours([str(index) for index in range(count)])
        assert len({*given.values(), "#222222"}) == count + 1
