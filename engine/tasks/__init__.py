"""What is predicted, and how is it scored?"""

from engine.tasks.classification import CALIBRATION_BINS, ClassificationScore
from engine.tasks.cohort import CohortScore
from engine.tasks.metric import ACCURACY, Metric

__all__ = ["ACCURACY", "CALIBRATION_BINS", "ClassificationScore", "CohortScore", "Metric"]
