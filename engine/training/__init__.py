"""The training loop, checkpoints, run folders, evaluation and export."""

from engine.methods import weights_sha256
from engine.training.entry import train
from engine.training.environment import describe_environment
from engine.training.export import export_network
from engine.training.folder import Resume
from engine.training.predicted_maps import draw_predictions
from engine.training.reports import mean_score
from engine.training.result import Absence, BestScore, Fault, Result
from engine.training.runs import Run, evaluate, load

__all__ = [
    "Absence",
    "BestScore",
    "Fault",
    "Result",
    "Resume",
    "Run",
    "describe_environment",
    "draw_predictions",
    "evaluate",
    "export_network",
    "load",
    "mean_score",
    "train",
    "weights_sha256",
]
