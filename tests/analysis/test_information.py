"""Do the probes find all there is in the image, all of a label that is written down, and nothing in a constant?"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from engine.analysis import OpenedRun, Settings, analyse, information
from engine.analysis.images import ImageSet
from engine.analysis.information import IMAGE
from engine.analysis.probes import epochs_of, image_information, label_information, trained

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
        rebuilt, mean = image_information(features[0], learned, [(features[1], scored)], 40, 0)
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

    loss, accuracy = label_information(written(learned), learned, [(written(scored), scored)], 10, SHAPE, 20, 0)
    assert accuracy == 1.0 and math.log(10) - loss == pytest.approx(math.log(10), abs=0.1)
    nothing = torch.ones(len(learned), 3, 8, 8), torch.ones(len(scored), 3, 8, 8)
    loss, _ = label_information(nothing[0], learned, [(nothing[1], scored)], 10, SHAPE, 10, 0)
    assert math.log(10) - loss == pytest.approx(0.0, abs=0.05)


def test_equal_seeds_give_equal_probes_and_others_others(digits: Any) -> None:
    pixels, labels, scored, truth = digits
    first, again, other = (
        label_information(pixels, labels, [(scored, truth)], 10, SHAPE, 1, seed) for seed in (3, 3, 4)
    )
    assert first == again != other


def test_statistics_of_a_set_that_is_stored_class_by_class_are_those_of_the_set() -> None:
    features = torch.arange(300.0)[:, None].expand(-1, 3).contiguous()
    probe = trained(lambda: nn.Sequential(nn.BatchNorm1d(3)), features, features, F.mse_loss, 1, 0)
    means, variances = (probe.get_buffer(f"0.running_{name}") for name in ("mean", "var"))
    # Of two halves in this order the variances would be a quarter.
    assert means.tolist() == pytest.approx([149.5] * 3)
    assert variances.tolist() == pytest.approx([7499.9] * 3, rel=0.05)


@pytest.mark.slow
def test_the_label_probe_finds_as_much_in_a_set_that_is_stored_class_by_class() -> None:
    digits = load_digits()
    pixels, labels = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32), torch.tensor(digits.target)
    scored = [(pixels[1400:], labels[1400:])]
    as_it_comes, by_class = (
        label_information(pixels[rows], labels[rows], scored, 10, SHAPE, 4, 0)
        for rows in (torch.arange(1280), labels[:1280].argsort(stable=True))
    )
    assert by_class[0] == pytest.approx(as_it_comes[0], abs=0.2)


def test_looked_at_images_are_scored_in_batches(trained_runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, pixels = list[int](), ImageSet.pixels

    def noted(self: ImageSet, rows: Any = slice(None)) -> torch.Tensor:
        found = pixels(self, rows)
        if len(self.places) == 20:
            asked.append(len(found))
        return found

    with OpenedRun(trained_runs("end_to_end"), Settings(images=20, probe_epochs=1)) as opened:
        monkeypatch.setattr(ImageSet, "pixels", noted)
        information.Information().measure(opened, "network", IMAGE)
    assert asked and set(asked) == {16, 4}


def test_another_budget_of_the_probes_replaces_what_was_found_with_a_line(
    run_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(information.Information, "parts", lambda *given: (IMAGE,))
    monkeypatch.setattr(information.Information, "refusal", lambda *given: None)
    run, told = run_of("end_to_end"), list[str]()
    (first,) = analyse([run], ["information"], Settings(images=4, probe_epochs=1))
    assert first.caption.endswith("; probes of 1 epochs")
    analyse([run], ["information"], Settings(images=4, probe_epochs=2), tell=told.append)
    assert told[1:] == [f"information: {first.folder}: replaces what was found of {first.caption}"]


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
