"""Does an exported file give the run's network to programs that know nothing of this engine?"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from engine import Backbone, Plan, Recipe, Run, RunError, load, train
from engine.backbones import build
from engine.checkpoints import Checkpoint, LearnerState
from engine.data import Facts
from engine.methods import method_of
from engine.recipes import EndToEnd
from engine.training import Result, export, export_network

Tiny = Callable[..., Recipe]
has_onnx = importlib.util.find_spec("onnx") is not None and importlib.util.find_spec("onnxscript") is not None
needs_onnx = pytest.mark.skipif(not has_onnx, reason="the extra onnx is not installed")


def make_run(recipe: Recipe, path: Path, image_shape: tuple[int, int, int] = (3, 32, 32)) -> Run:
    """Return a run that was never trained, with weights and running statistics that no new network has."""
    facts = Facts(
        name="synthetic",
        num_classes=7,
        class_names=tuple("abcdefg"),
        image_shape=image_shape,
        mean=(0.5,) * image_shape[0],
        std=(0.25,) * image_shape[0],
        sizes={"train": 8, "test": 8},
        fingerprint="0" * 64,
    )
    network = build(recipe.backbone, 7, image_shape, recipe.seed)
    draws = torch.Generator().manual_seed(99)
    state = {}
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value = value * (1 + 0.1 * torch.rand(value.shape, generator=draws))
            value += 0.1 * (torch.rand(value.shape, generator=draws) - 0.5)
        state[name] = value.clone()
    children = [name for name, _ in network.named_children()]
    states = {}
    for learner in method_of(recipe).team(recipe, facts).learners:
        assert set(learner.blocks) <= set(children)
        tensors = {f"body.{name}": value for name, value in state.items() if name.split(".")[0] in learner.blocks}
        states[learner.name] = LearnerState(tensors | {"auxiliary.head.weight": torch.ones(3)}, {})
    return Run(path, recipe, Checkpoint(path, 1, states, {}), facts)


@pytest.fixture
def run(tiny_recipe: Tiny, tmp_path: Path) -> Run:
    return make_run(tiny_recipe(backbone=Backbone(name="resnet8")), tmp_path)


class PlainBlock(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        if stride > 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        else:
            self.downsample = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.downsample(x))


class PlainResNet8(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(PlainBlock(16, 16, 1))
        self.layer2 = nn.Sequential(PlainBlock(16, 32, 2))
        self.layer3 = nn.Sequential(PlainBlock(32, 64, 2))
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def outputs_agree(run: Run, other: nn.Module) -> None:
    images = torch.randn(2, *run.facts.image_shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected, found = run.network()(images), other.eval()(images)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_an_ordinary_cifar_resnet_takes_the_file(run: Run, tmp_path: Path) -> None:
    export_network(run, tmp_path / "a.safetensors")
    plain = PlainResNet8(7)
    plain.load_state_dict(safetensors.torch.load_file(tmp_path / "a.safetensors"), strict=True)
    outputs_agree(run, plain)


def test_torchvision_takes_the_file(tiny_recipe: Tiny, tmp_path: Path) -> None:
    run = make_run(tiny_recipe(backbone=Backbone(name="resnet18", stem="imagenet")), tmp_path)
    export_network(run, tmp_path / "a.safetensors")
    plain = torchvision.models.resnet18(num_classes=7)
    plain.load_state_dict(safetensors.torch.load_file(tmp_path / "a.safetensors"), strict=True)
    outputs_agree(run, plain)


def test_the_report_and_the_metadata(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    report = export_network(run, target)
    assert report["file"] == str(target)
    assert report["bytes"] == target.stat().st_size
    assert report["max_difference"] == 0
    with safetensors.safe_open(target, "pt") as file:
        metadata = file.metadata()
        names = list(file.keys())
    assert report["tensors"] == len(names)
    assert not [name for name in names if "auxiliary" in name or "body" in name or "segment" in name]
    assert metadata["recipe"] == run.recipe.name
    assert metadata["backbone"] == "resnet8"
    assert metadata["num_classes"] == "7"
    assert json.loads(metadata["class_names"]) == list("abcdefg")
    assert json.loads(metadata["image_shape"]) == [3, 32, 32]
    assert json.loads(metadata["mean"]) == [0.5] * 3
    assert json.loads(metadata["std"]) == [0.25] * 3
    assert metadata["engine_version"]
    assert metadata["export_version"] == "1"


def test_a_trained_run_is_exported_with_its_digest(tiny_recipe: Tiny, tmp_path: Path) -> None:
    result: Result = train(tiny_recipe(epochs=1), Plan(executor="process"), tmp_path / "run")
    report = export_network(load(result.run_dir), tmp_path / "a.safetensors")
    assert report["weights_sha256"] == result.weights_sha256


def test_an_existing_file_is_replaced(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    target.write_text("old")
    export_network(run, target)
    assert safetensors.torch.load_file(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.pt", r"\.safetensors or \.onnx"),
        ("a", r"\.safetensors or \.onnx"),
        ("absent/a.safetensors", "no folder"),
        ("folder.safetensors", "is no file"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused(run: Run, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(RunError, match=said):
        export_network(run, tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder.safetensors"]


def test_an_unknown_network_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="peer3"):
        export_network(run, tmp_path / "a.safetensors", "peer3")


def damage_values(content: bytes) -> bytes:
    state = safetensors.torch.load(content)
    state["fc.bias"] += 1.0
    return safetensors.torch.save(state)


def damage_buffers(content: bytes) -> bytes:
    state = safetensors.torch.load(content)
    state["bn1.num_batches_tracked"] += 1
    return safetensors.torch.save(state)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_values, "other outputs"),
        (damage_buffers, "other outputs"),
        (lambda content: content[:-100], "could not be read again"),
    ],
)
def test_a_file_that_came_out_wrong_is_not_left_behind(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes], said: str
) -> None:
    (tmp_path / "a.safetensors").write_text("old")
    monkeypatch.setattr(export, "write_synced", lambda path, content: path.write_bytes(damage(content)))
    with pytest.raises(RunError, match=said):
        export_network(run, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_tied_weights_are_exported(tiny_recipe: Tiny, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build(num_classes, image_shape):\n"
        "    one = nn.Conv2d(3, 3, 3, padding=1)\n"
        "    body = nn.Sequential(one, nn.ReLU(), one)\n"
        "    last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))\n"
        "    return nn.Sequential(body, last)"
    )
    recipe = tiny_recipe(backbone=Backbone(name=f"{tmp_path / 'net.py'}:build"), method=EndToEnd())
    run = make_run(recipe, tmp_path)
    tensors = run.checkpoint.states["segment0"].tensors
    for name in ("weight", "bias"):
        tensors[f"body.0.2.{name}"] = tensors[f"body.0.0.{name}"]
    export_network(run, tmp_path / "a.safetensors")
    assert set(safetensors.torch.load_file(tmp_path / "a.safetensors")) == set(run.network().state_dict())


@needs_onnx
def test_onnx_takes_any_batch_size(run: Run, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    report = export_network(run, tmp_path / "a.onnx")
    assert report["max_difference"] <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    for number in (1, 5):
        images = torch.randn(number, 3, 32, 32, generator=torch.Generator().manual_seed(number))
        (found,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), run.network()(images), rtol=1e-4, atol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["mean"]) == [0.5] * 3


@needs_onnx
@pytest.mark.parametrize("flat", ["x.view(int(x.shape[0]), -1)", "(x if x.is_meta or x.sum() > 0 else -x).flatten(1)"])
def test_a_network_that_cannot_be_traced_is_named_with_a_remedy(tiny_recipe: Tiny, tmp_path: Path, flat: str) -> None:
    code = (
        "from torch import nn\n"
        "class Flat(nn.Module):\n    def forward(self, x):\n        return {}\n"
        "def build(num_classes, image_shape):\n"
        "    return nn.Sequential(nn.Conv2d(3, 2, 3, 8), nn.Sequential(Flat(), nn.Linear(32, num_classes)))\n"
    )
    (net := tmp_path / "net.py").write_text(code.format(flat))
    recipe = tiny_recipe(backbone=Backbone(name=f"{net}:build"), method=EndToEnd())
    with pytest.raises(RunError) as refused:
        export_network(run := make_run(recipe, tmp_path), tmp_path / "a.onnx")
    assert str(refused.value).startswith(f"backbone.name={net}:build: torch cannot write it as ONNX")
    assert "give a name with .safetensors, or write the block without Python numbers" in str(refused.value)
    export_network(run, tmp_path / "a.safetensors")
    net.write_text(code.format("x.flatten(1)"))
    export_network(make_run(recipe, tmp_path), tmp_path / "b.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"net.py", "a.safetensors", "b.onnx"}


@needs_onnx
def test_onnx_outputs_that_differ_are_found(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    real = onnxruntime.InferenceSession

    class Wrong:
        def __init__(self, *words: Any, **more: Any) -> None:
            self.session = real(*words, **more)

        def run(self, names: Any, inputs: Any) -> Any:
            return [value + 1e-3 for value in self.session.run(names, inputs)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Wrong)
    with pytest.raises(RunError, match="other outputs"):
        export_network(run, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_onnx_is_checked_without_onnxruntime(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide("onnxruntime", monkeypatch)
    report = export_network(run, tmp_path / "a.onnx")
    assert report["max_difference"] is None
    assert "onnx.checker" in report["checked_with"]


def hide(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        export.importlib.util, "find_spec", lambda name, *more: None if name == package else real(name, *more)
    )


def test_a_missing_extra_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide("onnxscript", monkeypatch)
    with pytest.raises(RunError, match=r"pip install 'local-learning\[onnx\]'"):
        export_network(run, tmp_path / "a.onnx")
