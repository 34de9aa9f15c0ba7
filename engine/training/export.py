"""Writes a run's network to one file that needs nothing of this engine: safetensors, or ONNX.

The network takes images of shape [B, C, H, W], float32, normalised as (value in [0, 1] - mean) / std with the mean and
standard deviation per channel in the file's metadata, and gives logits [B, classes]. Of a task that compares features,
such as retrieval, it is written without its classifier, and gives those features [B, D].
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

import engine
from engine import backbones
from engine.atomic import sync_folder, write_error, write_synced
from engine.backbones.safetensors_files import EXPORT_VERSION, EXPORT_VERSION_NAME, OUTPUT_NAME
from engine.errors import RunError
from engine.methods import weights_sha256
from engine.paths import absolute, check_target
from engine.reading import one_line
from engine.recipes import Backbone
from engine.streams import generator
from engine.tasks import task_of
from engine.training.runs import Run, check_run

# Images in the comparison; another number than the one that an ONNX file is traced with.
_COMPARED = 3
_TRACED = 2
# Of the largest output, or of 1 where all are smaller: another order of summation, nothing more.
_ONNX_TOLERANCE = 1e-4


def export_network(run: Run, target: str | Path, network: str | None = None) -> dict[str, Any]:
    """Write a deployed network, and read it again to compare its outputs before the file gets its name.

    A .safetensors file holds the tensors under the ordinary module's names: ``load_state_dict`` of torchvision's
    ResNet, for instance, takes them. An .onnx file holds the network itself, for any batch size.

    Args:
        run: what was trained.
        target: the file, ending with .safetensors or .onnx; replaced if it exists.
        network: which of several; need not be given where there is one.

    Returns:
        ``file``; ``tensors``, their number; ``bytes`` of the file; ``weights_sha256`` as in summary.json;
        ``max_difference`` between the outputs, None when they could not be compared; ``checked_with``.

    Raises:
        RunError: ``run`` is no `Run`; the file cannot be written, or the network not as ONNX, or it does not give the
            same outputs; nothing is left of it then.
    """
    check_run(run)
    target = absolute(target, "--to", RunError)
    _check_target(target)
    settings = run.deployed(network).backbone
    module = _scored_part(run, run.network(network))
    aside = target.with_name(f".{target.name}.partial")
    try:
        # Whatever a link in its place leads to stays as it is.
        aside.unlink(missing_ok=True)
        if target.suffix == ".safetensors":
            checked = _write_safetensors(run, settings, module, aside)
        else:
            checked = _write_onnx(run, settings, module, aside)
        os.replace(aside, target)
        sync_folder(target.parent)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    return {
        "file": str(target),
        "tensors": len(module.state_dict()),
        "bytes": target.stat().st_size,
        "weights_sha256": weights_sha256(module.state_dict()),
        **checked,
    }


def _scored_part(run: Run, network: nn.Sequential) -> nn.Sequential:
    features = task_of(run.recipe, run.facts).scored == "features"
    return backbones.without_classifier(network) if features else network


def _check_target(target: Path) -> None:
    check_target(target, "--to", (".safetensors", ".onnx"), RunError)
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if target.suffix == ".onnx" and missing:
        raise RunError(
            f"{target}: writing ONNX needs {' and '.join(missing)}; pip install 'local-learning[onnx]', or give a name "
            "with .safetensors"
        )


def _metadata(run: Run, settings: Backbone) -> dict[str, str]:
    facts = run.facts
    return {
        "format": "pt",
        EXPORT_VERSION_NAME: str(EXPORT_VERSION),
        "recipe": run.recipe.name,
        "method": run.recipe.method.kind,
        "backbone": settings.name,
        "backbone_settings": TypeAdapter(Backbone).dump_json(settings.without_weights()).decode(),
        "num_classes": str(facts.num_classes),
        "class_names": json.dumps(facts.class_names),
        "image_shape": json.dumps(facts.image_shape),
        "mean": json.dumps(facts.mean),
        "std": json.dumps(facts.std),
        "input": "float32 [B, C, H, W]: (value in [0, 1] - mean) / std, per channel",
        OUTPUT_NAME: task_of(run.recipe, facts).output_in_words(),
        "engine_version": engine.__version__,
    }


def _write_safetensors(run: Run, settings: Backbone, module: nn.Sequential, path: Path) -> dict[str, Any]:
    name = settings.name
    # Copies: tensors that share memory, as tied weights do, are refused by safetensors.
    state = {key: value.clone().contiguous() for key, value in backbones.plain_state(module, name).items()}
    write_synced(path, safetensors.torch.save(state, _metadata(run, settings)))
    settings = settings.without_weights()
    # Another seed: a weight that the file does not hold would differ.
    outputs = task_of(run.recipe, run.facts).outputs
    fresh = _scored_part(run, backbones.build(settings, outputs, run.facts.image_shape, run.recipe.seed + 1))
    try:
        backbones.load_plain_state(fresh, name, safetensors.torch.load_file(path))
    except safetensors.SafetensorError as error:
        raise RunError(f"{path.name}: could not be read again after it was written: {error}") from error
    images = _images(run, _COMPARED)
    with torch.no_grad():
        difference = _largest_difference(module(images), fresh.eval()(images))
    if difference != 0 or weights_sha256(fresh.state_dict()) != weights_sha256(module.state_dict()):
        raise RunError(_unequal(path, difference, 0.0))
    return {"max_difference": difference, "checked_with": f"a new {name}"}


def _write_onnx(run: Run, settings: Backbone, module: nn.Sequential, path: Path) -> dict[str, Any]:
    axes = {0: torch.export.Dim("batch")}
    if task_of(run.recipe, run.facts).takes_any_size:
        axes |= {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                # A copy: the exporter may change what it traces.
                copy.deepcopy(module),
                (_images(run, _TRACED),),
                dynamo=True,
                dynamic_shapes=(axes,),
                input_names=["images"],
                output_names=["features" if task_of(run.recipe, run.facts).scored == "features" else "logits"],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise RunError(_untraced(settings, one_line(error.__cause__ or error))) from error
    assert program is not None
    traced = program.model.graph.inputs[0].shape
    # With a number that is read off a shape, torch fixes what it traced.
    if traced is not None and isinstance(traced[0], int):
        raise RunError(_untraced(settings, f"it came out for batches of {traced[0]} alone"))
    program.model.metadata_props.update(_metadata(run, settings))
    program.save(str(path), external_data=False)
    if importlib.util.find_spec("onnxruntime") is None:
        import onnx

        onnx.checker.check_model(str(path))
        return {"max_difference": None, "checked_with": "onnx.checker only; install onnxruntime to compare outputs"}
    import onnxruntime

    images = _images(run, _COMPARED)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = module(images)
    difference = _largest_difference(expected, torch.from_numpy(found))
    allowed = _ONNX_TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= allowed:
        raise RunError(_unequal(path, difference, allowed))
    return {"max_difference": difference, "checked_with": "onnxruntime"}


def _untraced(settings: Backbone, cause: str) -> str:
    return (
        f"backbone.name={settings.name}: torch cannot write it as ONNX for any number of images ({cause}): give a name "
        "with .safetensors, or write the block without Python numbers and branches that follow from tensors or their "
        "shapes, as int(x.shape[0]) does"
    )


def _images(run: Run, number: int) -> Tensor:
    return torch.randn(number, *run.facts.image_shape, generator=generator(run.recipe.seed, "export"))


def _largest_difference(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape:
        return float("inf")
    return float((expected - found).abs().max())


def _unequal(path: Path, difference: float, allowed: float) -> str:
    return (
        f"{path.name}: gave other outputs than the run's network when it was read again (largest difference "
        f"{difference:g}, allowed {allowed:g}), so it was removed; the disk may be damaged, or the backbone may not do "
        "the same each time"
    )
