"""Times of a network's blocks and segments on this machine, and the cut that they choose."""

from engine.timing.blocks import TimedBlocks
from engine.timing.choice import MeasuredCut, chosen_recipe, measured_cut
from engine.timing.search import Place, search
from engine.timing.segments import TimedSegments
from engine.timing.subject import Subject, subject_of

__all__ = [
    "MeasuredCut",
    "Place",
    "Subject",
    "TimedBlocks",
    "TimedSegments",
    "chosen_recipe",
    "measured_cut",
    "search",
    "subject_of",
]
