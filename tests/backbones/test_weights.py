"""Do files of weights load, and are files that do not fit named with found and expected?"""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

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
    assert "backbone.weights_without=classifier" in message


def fine_tuned(path: Path, seed: int = 5, num_classes: int = 10) -> dict[str, Tensor]:
    settings = Backbone(name="resnet8", weights=str(path), weights_without="classifier")
    return backbones.plain_state(backbones.build(settings, num_classes, SHAPE, seed=seed), "resnet8")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("held", ["another number of classes", "the same number", "no classifier"])
def test_a_new_classifier_is_trained_on_top_of_weights(tmp_path: Path, suffix: str, held: str) -> None:
    path = tmp_path / f"weights{suffix}"
    state = state_of(num_classes=100 if held == "another number of classes" else 10)
    if held == "no classifier":
        state = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
        assert "lacks the classifier of resnet8 (fc.weight, fc.bias). Set backbone.weights_without=" in refusal(path)
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded, fresh = fine_tuned(path), backbones.plain_state(make(), "resnet8")
    for key, tensor in loaded.items():
        assert torch.equal(tensor, fresh[key] if key.startswith("fc.") else state[key]), key
    # The seed decides what is new, and nothing else.
    other = fine_tuned(path, seed=6)
    assert {key for key in loaded if not torch.equal(loaded[key], other[key])} == {"fc.weight", "fc.bias"}


def test_a_file_of_torchvision_serves_for_other_classes(tmp_path: Path) -> None:
    reference = torchvision.models.resnet18(num_classes=12).eval()
    torch.save(reference.state_dict(), tmp_path / "resnet18.pth")
    settings = Backbone(
        name="resnet18", stem="imagenet", weights=str(tmp_path / "resnet18.pth"), weights_without="classifier"
    )
    network = backbones.build(settings, 7, SHAPE, seed=0).eval()
    images = torch.rand(2, 3, 64, 64)
    reference.fc = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(
            network[-1][-1].weight @ reference(images).T, (network(images) - network[-1][-1].bias).T
        )


def test_what_is_left_out_is_the_classifier_alone(tmp_path: Path) -> None:
    state = state_of()
    del state["layer1.0.conv1.weight"]
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(RecipeError, match=r"missing layer1\.0\.conv1\.weight; unexpected none"):
        fine_tuned(tmp_path / "a.safetensors")
    with pytest.raises(RecipeError, match="weights is not given"):
        Backbone(name="resnet8", weights_without="classifier")


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


def header_of(tensors: object, data: bytes = b"") -> bytes:
    header = json.dumps(tensors).encode()
    return len(header).to_bytes(8, "little") + header + data


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
ODD_SAFETENSORS: dict[str, bytes] = {
    "a header of 8 exabytes": (2**63 - 1).to_bytes(8, "little") + b"{}",
    "a header beyond the end": (100).to_bytes(8, "little") + b"{}",
    "no json": header_of("x")[:-1] + b"!",
    "a list": header_of([1]),
    "nested deep": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "a number for a tensor": header_of({"a": 1}),
    "an unknown dtype": header_of({"a": {**ONE, "dtype": "F4"}}, bytes(8)),
    "a negative size": header_of({"a": {**ONE, "shape": [-2]}}, bytes(8)),
    "a shape of 8 exabytes": header_of({"a": {**ONE, "shape": [2**61, 2**61]}}, bytes(8)),
    "a shape of text": header_of({"a": {**ONE, "shape": ["2"]}}, bytes(8)),
    "offsets beyond the end": header_of({"a": {**ONE, "shape": [4], "data_offsets": [0, 16]}}, bytes(8)),
    "a hole": header_of({"a": {**ONE, "data_offsets": [4, 12]}}, bytes(12)),
    "two in one place": header_of({"a": ONE, "b": ONE}, bytes(8)),
    "bytes of nothing": header_of({"a": ONE}, bytes(9)),
    "metadata of numbers": header_of({"__metadata__": {"a": 1}, "a": ONE}, bytes(8)),
    "an integer of 5,000 digits": header_of({"a": ONE}).replace(b"[2]", b"[" + b"9" * 5000 + b"]"),
}


@pytest.mark.parametrize("odd", ODD_SAFETENSORS)
def test_an_odd_header_is_one_line(odd: str, tmp_path: Path) -> None:
    (tmp_path / "odd.safetensors").write_bytes(ODD_SAFETENSORS[odd])
    message = refusal(tmp_path / "odd.safetensors")
    assert "cannot be read" in message
    assert "\n" not in message


def test_a_file_of_20_gigabytes_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"")
    os.truncate(tmp_path / "a.safetensors", 20 * 2**30)
    assert "is no safetensors file" in refusal(tmp_path / "a.safetensors")
    header = header_of({"a": {"dtype": "F32", "shape": [5 * 2**30], "data_offsets": [0, 20 * 2**30]}})
    (tmp_path / "b.safetensors").write_bytes(header)
    os.truncate(tmp_path / "b.safetensors", len(header) + 20 * 2**30)
    assert "unexpected a" in refusal(tmp_path / "b.safetensors")
    (tmp_path / "c.pth").write_bytes(b"PK")
    os.truncate(tmp_path / "c.pth", 20 * 2**30)
    assert "has 21,474,836,480 bytes, expected at most" in refusal(tmp_path / "c.pth")


def test_a_file_that_is_larger_unpacked_is_refused(tmp_path: Path) -> None:
    torch.save(state_of(), tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "packed.pth", "w") as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name), zipfile.ZIP_DEFLATED)
    assert "is compressed" in refusal(tmp_path / "packed.pth")


ODD_STATES: dict[str, object] = {
    "numbers for names": {1: torch.zeros(1)},
    "sparse": {"conv1.weight": torch.zeros(16, 3, 3, 3).to_sparse()},
    "complex": {"conv1.weight": torch.zeros(16, 3, 3, 3, dtype=torch.complex64)},
    "meta": {"conv1.weight": torch.zeros(16, 3, 3, 3, device="meta")},
    "huge but for its bytes": {"conv1.weight": torch.zeros(1).expand(2**40)},
    "half of a character": {"\ud800": torch.zeros(1)},
    "a name of a megabyte": {"a" * 2**20: torch.zeros(1)},
    "nothing": None,
}


@pytest.mark.parametrize("odd", ODD_STATES)
def test_an_odd_state_is_one_line(odd: str, tmp_path: Path) -> None:
    state: Any = ODD_STATES[odd]
    # A tensor on the device meta is what is odd here, so the others of the network are there.
    torch.save({**state_of(), **state} if state is not None else state, tmp_path / "odd.pth")
    message = refusal(tmp_path / "odd.pth")
    assert len(message) < 2000
    assert "\n" not in message
    message.encode()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_what_is_no_file_is_named_and_not_waited_for(suffix: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    assert "is no regular file" in refusal(tmp_path / f"pipe{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    assert "is no regular file" in refusal(tmp_path / f"folder{suffix}")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(state_of(), tmp_path / "a.safetensors")

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("engine.reading.os.open", refuse)
    assert "may not be read by this user" in refusal(tmp_path / "a.safetensors")
