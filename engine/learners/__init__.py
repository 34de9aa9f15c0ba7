"""Learners: what an actor owns, its phases, its optimizer and its state."""

from engine.learners.learner import Learner, explain
from engine.learners.numerics import choose_device, numerics_applied
from engine.learners.optimization import learning_rate, make_optimizer
from engine.learners.state import LearnerState

__all__ = [
    "Learner",
    "LearnerState",
    "choose_device",
    "explain",
    "learning_rate",
    "make_optimizer",
    "numerics_applied",
]
