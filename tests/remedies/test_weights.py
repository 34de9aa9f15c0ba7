"""Does what a refusal of a file of weights says lead to a network that starts with weights?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine import backbones
from engine.recipes import Backbone

Prose = list[tuple[str, str]]

GIVEN = "backbone.weights=FOLDER/whole.pth"
AGAIN = [
    ("fetch the file again", "backbone.weights=FOLDER/whole.pth"),
    (r"or save the weights as (\.\w+)", "backbone.weights=FOLDER/whole{0}"),
]
OWN_NAMES = (r"Give the weights of a (resnet14)", "backbone.name={0} backbone.weights=FOLDER/whole.pth")
# Files, by name, and what remedies in prose mean; FOLDER is where the files are.
CASES: list[tuple[str, Prose]] = [
    (
        "whole.bin",
        [
            (rf"Expected .*({ending})\b", "backbone.weights=FOLDER/whole{0}")
            for ending in (r"\.safetensors", r"\.pth", r"\.pt")
        ],
    ),
    ("missing.pth", [("give the path of one that is there", GIVEN)]),
    ("no_classifier.safetensors", [("or give weights that hold one", GIVEN)]),
    ("no_classifier.pth", [("or give weights that hold one", GIVEN)]),
    ("seven_classes.safetensors", [("or give weights for the classes of this data set", GIVEN)]),
    ("seven_classes.pth", [("or give weights for the classes of this data set", GIVEN)]),
    ("resnet20.pth", [OWN_NAMES]),
    ("resnet20.safetensors", [OWN_NAMES]),
    ("wide.pth", [OWN_NAMES, (r"or change these fields", "backbone.widths=8,8,8")]),
    ("cut.pth", AGAIN),
    ("cut.safetensors", AGAIN),
    ("offsets.safetensors", AGAIN),
    ("code.pth", AGAIN),
    ("nested.pth", [("save the inner state dict alone", GIVEN)]),
    ("sparse.pth", [("save the state dict of a plain module", GIVEN)]),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small ResNet-14 for 10 classes of grey images, and files that do not fit it."""
    folder = tmp_path_factory.mktemp("weights")

    def state(name: str = "resnet14", width: int = 4, num_classes: int = 10) -> dict[str, Tensor]:
        network = backbones.build(Backbone(name=name, widths=(width,) * 3), num_classes, (1, 8, 8), 1)
        return backbones.plain_state(network, name)

    whole = state()
    states = {
        "whole": whole,
        "no_classifier": {name: tensor for name, tensor in whole.items() if not name.startswith("fc.")},
        "seven_classes": state(num_classes=7),
        "resnet20": state("resnet20"),
        "wide": state(width=8),
    }
    assert len(states["no_classifier"]) < len(whole), "the classifier has another name"
    for name, tensors in states.items():
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
        torch.save(tensors, folder / f"{name}.pth")
    for ending in ("bin", "pt"):
        torch.save(whole, folder / f"whole.{ending}")
    for ending in ("pth", "safetensors"):
        (folder / f"cut.{ending}").write_bytes((folder / f"whole.{ending}").read_bytes()[:3000])
    header = (folder / "whole.safetensors").read_bytes().replace(b'"F32"', b'"F64"')
    (folder / "offsets.safetensors").write_bytes(header)
    torch.save(Path("a folder"), folder / "code.pth")
    torch.save({"state_dict": whole}, folder / "nested.pth")
    torch.save({**whole, "fc.weight": whole["fc.weight"].to_sparse()}, folder / "sparse.pth")
    torch.save({**whole, "more": torch.zeros(1 << 16)}, folder / "large.pth")
    return folder


def placed(prose: Prose, folder: Path) -> Prose:
    """Put the folder's path where FOLDER stands."""
    return [(pattern, meant.replace("FOLDER", str(folder))) for pattern, meant in prose]


@pytest.mark.parametrize(("name", "prose"), [pytest.param(*row, id=row[0]) for row in CASES])
def test_files_of_weights(
    name: str, prose: Prose, files: Path, follow: Callable[..., None], start: Callable[..., None]
) -> None:
    follow(start, [f"backbone.weights={files / name}"], placed(prose, files))


def test_a_file_that_is_too_large(
    files: Path, follow: Callable[..., None], start: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As checkpoints are, which hold the state of an optimizer beside the weights."""
    monkeypatch.setattr("engine.backbones.weights._ROOM_BYTES", 1 << 16)
    prose = [("save its weights alone", GIVEN), (r"or as (\.\w+)", "backbone.weights=FOLDER/whole{0}")]
    follow(start, [f"backbone.weights={files / 'large.pth'}"], placed(prose, files))
