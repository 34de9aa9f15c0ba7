"""Are the maps captum's, of the network and of each segment by its own head, and do they say what they should?"""

from __future__ import annotations

from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from torch import nn

from engine.analysis import OpenedRun, Settings, analyse
from engine.analysis.cam import Cam, enlarged, grad_cam
from engine.errors import RunError

FOUR = Settings(positions=(1, 4, 7, 15))


class _Local(nn.Module):
    """A segment's network up to its features, and its head, put together anew from the checkpoint's learners."""

    def __init__(self, bodies: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(*bodies), head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images))


def _captum(network: nn.Module, layer: nn.Module, images: torch.Tensor) -> np.ndarray:
    target = network(images).argmax(1)
    return (
        captum.attr.LayerGradCam(network, layer)
        .attribute(images, target, relu_attributions=True)
        .detach()[:, 0]
        .numpy()
    )


@pytest.mark.parametrize("name", ["end_to_end", "infopro", "dml"])
def test_maps_of_networks_are_those_of_captum(trained_runs: Any, name: str) -> None:
    with OpenedRun(trained_runs(name), FOUR) as opened:
        for network in opened.networks:
            whole = opened.network(network)
            last = [shape for shape in opened.shapes(network) if len(shape) == 3 and shape[1] > 1]
            expected = _captum(whole, whole[len(last) - 1], opened.images.inputs())
            maps = Cam().measure(opened, network, "")["maps"]
            assert maps.shape == expected.shape and maps.max() > 0
            np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-6)


def test_maps_of_segments_are_those_of_captum_on_their_heads(trained_runs: Any) -> None:
    with OpenedRun(trained_runs("infopro"), FOUR) as opened:
        assert Cam().parts(opened, "network") == ("segment0", "segment1", "")
        learners = list(opened.learners("network").values())
        for place, part in enumerate(("segment0", "segment1")):
            head = learners[place].objective.terms["cross_entropy"].head
            local = _Local([each.body for each in learners[: place + 1]], head).eval()
            expected = _captum(local, local.body, opened.images.inputs())
            np.testing.assert_allclose(Cam().measure(opened, "network", part)["maps"], expected, rtol=1e-3, atol=1e-6)


def test_what_works_in_place_behind_the_features_does_no_harm() -> None:
    features, linear = torch.randn(2, 3, 4, 4), nn.Linear(3, 5)

    def network(in_place: bool) -> nn.Module:
        return nn.Sequential(nn.ReLU(inplace=in_place), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)

    kept = features.clone()
    assert torch.equal(grad_cam(features, network(True))[0], grad_cam(features, network(False))[0])
    assert torch.equal(features, kept)


def test_evidence_lies_where_the_class_is() -> None:
    # Channel 0 speaks for class 0 and lights up at the top left; channel 1 for class 1, at the bottom.
    features = torch.zeros(1, 2, 4, 4)
    features[0, 0, 0, 0], features[0, 1, 3, :] = 8.0, 1.0
    behind = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    maps, logits = grad_cam(features, behind)
    assert logits.argmax() == 0
    assert maps[0, 0, 0] > 0 and int((maps > 0).sum()) == 1
    assert enlarged(maps.numpy(), (8, 8))[0].max() == 1.0
    assert not enlarged(np.full((1, 2, 2), 3.0, np.float32), (8, 8)).any()


def test_chosen_images_are_looked_at(run_of: Any) -> None:
    run = run_of("infopro")
    (finding,) = analyse([run], ["cam"], FOUR)
    assert [row["position"] for row in finding.rows] == [1, 4, 7, 15] * 3
    assert "images 1, 4, 7, 15 of test" in finding.caption
    with OpenedRun(run, Settings()) as opened:
        labels = [opened.run.facts.class_names[label] for label in opened.images.batch.labels[[1, 4, 7, 15]]]
    assert [row["label"] for row in finding.rows[:4]] == labels
    assert all(row["match"] == pytest.approx(1.0) for row in finding.rows if not row["head"] and row["area"])
    with pytest.raises(RunError, match="--positions 99: .*no labelled image there in test; expected 0 to 19"):
        analyse([run], ["cam"], Settings(positions=(3, 99)))
