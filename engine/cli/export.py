"""`local-learning export`: a trained network for use without this engine."""

from __future__ import annotations

import argparse

from engine.cli.outcome import Outcome
from engine.cli.words import PROGRAM

EPILOG = f"""The file holds the plain backbone: no auxiliary networks, and the names of the ordinary module, so that
torchvision's ResNet-18, for instance, loads it. It takes images normalised with the mean and standard deviation in
its metadata. Its outputs are compared with those of the run before the command succeeds.

examples:
  {PROGRAM} export runs/infopro_digits-01234567 --to digits.safetensors
  {PROGRAM} export runs/infopro_digits-01234567 --to digits.onnx
  {PROGRAM} export runs/dml_digits-01234567 --peer 1 --to peer1.safetensors
  {PROGRAM} export runs/infopro_digits-01234567/checkpoints/step-000100 --to earlier.safetensors"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the words that may follow ``export``."""
    parser.add_argument("run", metavar="RUN", help="run folder (its newest checkpoint), or one of its checkpoints")
    parser.add_argument("--to", metavar="FILE", required=True, help="FILE.safetensors, or FILE.onnx")
    parser.add_argument("--peer", metavar="N", type=int, help="which network of a cohort, counted from 0")


def run(options: argparse.Namespace) -> Outcome:
    """Write the file and compare its outputs."""
    from engine.training import export_network, load

    network = f"peer{options.peer}" if options.peer is not None else None
    opened = load(options.run)
    written = export_network(opened, options.to, network)
    checked = f"checked with {written['checked_with']}"
    if written["max_difference"] is not None:
        checked += f": largest difference between the outputs {written['max_difference']:.2g}"
    lines = [
        *opened.checkpoint.skipped,
        f"{written['file']}: {written['tensors']} tensors, {written['bytes']:,} bytes",
        f"weights sha256 {written['weights_sha256']}",
        checked,
        *opened.warnings,
    ]
    return Outcome(lines, {**written, "warnings": opened.warnings})
