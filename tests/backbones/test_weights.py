"""Do files of weights load, and are files that do not fit named with found and expected?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from engine import backbones
from engine.errors import RecipeError
from engine.recipes.backbone import Backbone

SHAPE = (3, 32, 32)


def make(name: str = "resnet8", num_classes: int = 10, weights: Path | None = None) -> nn.Sequential:
    settings = Backbone(name=name, weights=None if weights is None else str(weights))
    return backbones.build(settings, num_classes, SHAPE, seed=5)


def state_of(name: str = "resnet8", num_classes: int = 10) -> dict[str, Tensor]:
    network = backbones.build(Backbone(name=name), num_classes, SHAPE, seed=6)
    return backbones.plain_state(network, name)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_files_of_every_kind_load(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    state = state_of()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = backbones.plain_state(make(weights=path), "resnet8")
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in state.items())


def test_a_file_as_torchvision_publishes_it_loads(tmp_path: Path) -> None:
    reference = torchvision.models.resnet18(num_classes=12).eval()
    # The oldest published files have no counters of batch norms.
    state = {key: tensor for key, tensor in reference.state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "resnet18.pth")
    settings = Backbone(name="resnet18", stem="imagenet", weights=str(tmp_path / "resnet18.pth"))
    network = backbones.build(settings, 12, SHAPE, seed=0).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images), reference(images))


def refusal(path: Path, name: str = "resnet8", num_classes: int = 10) -> str:
    with pytest.raises(RecipeError) as raised:
        make(name, num_classes, path)
    message = str(raised.value)
    assert message.startswith(f"backbone.weights={path}")
    return message


def test_another_number_of_classes_is_named(tmp_path: Path) -> None:
    save_file(state_of(num_classes=100), tmp_path / "a.safetensors")
    message = refusal(tmp_path / "a.safetensors")
    assert "fc.weight: found (100, 64), expected (10, 64)" in message
    assert "number of classes" in message


def test_another_stem_is_named(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(num_classes=10).state_dict(), tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth", "resnet18")
    assert "conv1.weight: found (64, 3, 7, 7), expected (64, 3, 3, 3)" in message
    assert "backbone.stem" in message


def test_another_depth_is_named_with_the_first_keys(tmp_path: Path) -> None:
    save_file(state_of("resnet14"), tmp_path / "a.safetensors")
    message = refusal(tmp_path / "a.safetensors")
    assert re.search(r"missing none; unexpected layer1\.1\.\S+, \S+, \S+, and \d+ more", message)
    save_file(state_of("resnet8"), tmp_path / "b.safetensors")
    assert re.search(
        r"missing layer1\.1\.\S+, .* more; unexpected none", refusal(tmp_path / "b.safetensors", "resnet14")
    )


def test_a_refused_state_changes_nothing() -> None:
    network = make()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    state = state_of()
    state["fc.weight"] = torch.zeros(3, 64)
    with pytest.raises(RecipeError):
        backbones.load_plain_state(network, "resnet8", state)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_files_that_are_no_weights_are_named(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "absent.pth")
    assert "found a file of type .onnx" in refusal(tmp_path / "a.onnx")
    for suffix in (".safetensors", ".pth"):
        (tmp_path / f"damaged{suffix}").write_bytes(b"no weights at all, but some text of some length")
        assert "cannot be read" in refusal(tmp_path / f"damaged{suffix}")
        (tmp_path / f"empty{suffix}").write_bytes(b"")
        assert "cannot be read" in refusal(tmp_path / f"empty{suffix}")
    torch.save({"epoch": 3, "state_dict": state_of()}, tmp_path / "checkpoint.pth")
    assert "epoch, state_dict" in refusal(tmp_path / "checkpoint.pth")
    torch.save([1], tmp_path / "list.pth")
    assert "found list" in refusal(tmp_path / "list.pth")


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must not run",)


def test_a_pickle_with_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": Attack()}, tmp_path / "attack.pth")
    assert "cannot be read" in refusal(tmp_path / "attack.pth")
    assert capsys.readouterr().out == ""
