"""What is predicted, and how is it scored?"""

from engine.tasks.classification import CALIBRATION_BINS, ClassificationScore

__all__ = ["CALIBRATION_BINS", "ClassificationScore"]
