"""What is predicted, and how is it scored?"""

from engine.tasks.classification import CALIBRATION_BINS, ClassificationScore
from engine.tasks.cohort import CohortScore

__all__ = ["CALIBRATION_BINS", "ClassificationScore", "CohortScore"]
