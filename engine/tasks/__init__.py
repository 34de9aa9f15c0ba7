"""Tasks: what is predicted, how it is learned, and how it is scored; one file for each."""

from engine.tasks.classification import ClassificationTask
from engine.tasks.classification_score import CALIBRATION_BINS, ClassificationScore
from engine.tasks.cohort import CohortScore
from engine.tasks.metric import ACCURACY, MEAN_IOU, Metric
from engine.tasks.rankings import Ranking, queries_with_match, rankings
from engine.tasks.registry import SCORES, headline_of, task_of
from engine.tasks.segmentation import SegmentationTask
from engine.tasks.segmentation_score import CohortSegmentationScore, ConfusionMatrix, SegmentationScore
from engine.tasks.task import CommonScore, HeadStyle, Score, Task

__all__ = [
    "ACCURACY",
    "CALIBRATION_BINS",
    "ClassificationScore",
    "ClassificationTask",
    "CohortScore",
    "CohortSegmentationScore",
    "CommonScore",
    "ConfusionMatrix",
    "HeadStyle",
    "MEAN_IOU",
    "Metric",
    "Ranking",
    "SCORES",
    "Score",
    "SegmentationScore",
    "SegmentationTask",
    "Task",
    "headline_of",
    "queries_with_match",
    "rankings",
    "task_of",
]
