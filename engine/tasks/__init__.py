"""What is predicted, and how is it scored?"""

from engine.tasks.classification import CALIBRATION_BINS, ClassificationScore
from engine.tasks.cohort import CohortScore
from engine.tasks.headline import headline_of
from engine.tasks.metric import ACCURACY, SCORES, Metric

__all__ = [
    "ACCURACY",
    "CALIBRATION_BINS",
    "SCORES",
    "ClassificationScore",
    "CohortScore",
    "Metric",
    "headline_of",
]
