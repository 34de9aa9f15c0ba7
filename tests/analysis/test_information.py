"""Do the probes find all there is in the image, all of a label that is written down, and nothing in a constant?"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from engine.analysis import OpenedRun, Settings, analyse, information
from engine.analysis.information import IMAGE
from engine.analysis.probes import epochs_of, image_information, label_information

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return pixels and labels from which a probe learns, and those on which it is scored."""
    found = load_digits()
    pixels = torch.tensor(found.images[:, None] / 16, dtype=torch.float32)
    labels = torch.tensor(found.target)
    return pixels[:256], labels[:256], pixels[256:456], labels[256:456]


@pytest.mark.slow
def test_the_image_itself_has_most_and_a_constant_nothing(digits: Any) -> None:
    learned, _, scored, _ = digits
    half = [F.interpolate(F.avg_pool2d(each, 4), size=(8, 8)) for each in (learned, scored)]
    constant = [torch.ones_like(each) for each in (learned, scored)]
    found = {}
    for name, features in (("image", (learned, scored)), ("half", half), ("constant", constant)):
        rebuilt, mean = image_information((features[0], features[1]), (learned, scored), 40, 0)
        found[name] = mean - rebuilt
    # The least loss is the entropy of the pixels, which are no bits.
    entropy = float(F.binary_cross_entropy(scored, scored))
    most = float(F.binary_cross_entropy(learned.mean(0).clamp(1e-4, 1 - 1e-4).expand_as(scored), scored)) - entropy
    assert found["constant"] < 0.0 < found["half"] < 0.8 * found["image"]
    assert 0.7 * most < found["image"] <= most


@pytest.mark.slow
def test_a_written_label_is_worth_the_logarithm_of_the_classes(digits: Any) -> None:
    _, learned, _, scored = digits

    def written(labels: torch.Tensor) -> torch.Tensor:
        return F.one_hot(labels, 10).float()[:, :, None, None].expand(-1, -1, 8, 8).contiguous()

    loss, accuracy = label_information((written(learned), written(scored)), (learned, scored), 10, SHAPE, 20, 0)
    assert accuracy == 1.0 and math.log(10) - loss == pytest.approx(math.log(10), abs=0.1)
    nothing = torch.ones(len(learned), 3, 8, 8), torch.ones(len(scored), 3, 8, 8)
    loss, _ = label_information(nothing, (learned, scored), 10, SHAPE, 10, 0)
    assert math.log(10) - loss == pytest.approx(0.0, abs=0.05)


def test_equal_seeds_give_equal_probes_and_others_others(digits: Any) -> None:
    pixels, labels, scored, truth = digits
    first, again, other = (
        label_information((pixels, scored), (labels, truth), 10, SHAPE, 1, seed) for seed in (3, 3, 4)
    )
    assert first == again != other


def test_image_and_blocks_with_maps_are_probed(run_of: Any) -> None:
    run = run_of("end_to_end")
    (finding,) = analyse([run], ["information"], Settings(images=12, probe_epochs=1))
    with OpenedRun(run, Settings()) as opened:
        blocks = [name for name, _ in opened.run.network("network").named_children()]
    assert [row["block"] for row in finding.rows] == [IMAGE, *blocks[:-1]]
    assert [row["depth"] for row in finding.rows] == list(range(len(blocks)))
    assert all(row["image_information"] >= 0 for row in finding.rows)
    assert all((row["epochs"], row["training_images"]) == (1, 44) for row in finding.rows)


def test_no_more_images_are_probed_than_fit_with_their_features(
    trained_runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OpenedRun(trained_runs("end_to_end"), Settings()) as opened:
        assert len(information.probed_images(opened, "network").places) == 44
        largest = max(math.prod(shape) for shape in opened.shapes("network"))
        monkeypatch.setattr(information, "PROBED_BYTES", 7 * 4 * (64 + largest) + 3)
        assert len(information.probed_images(opened, "network").places) == 7


def test_a_probe_learns_for_a_quarter_of_the_training_but_200_steps_at_least() -> None:
    assert epochs_of(None, 160, 10_000) == 40
    assert epochs_of(None, 4, 10_000) == 3
    assert epochs_of(None, 15, 500) == 67
    assert epochs_of(2, 160, 500) == 2
