"""Retrieval: identities that were never trained on are found again by features, learned as classes are.

Training is classification of the training identities. Evaluation drops the classifier and compares the features that
enter it: those of query and gallery, both in the split ``test``.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from engine.objectives import BatchHardTriplet, Classification, Term
from engine.recipes import Retrieval
from engine.tasks.classification import ClassificationTask
from engine.tasks.metric import Metric
from engine.tasks.retrieval_cohort import RetrievalCohortScore
from engine.tasks.retrieval_score import MEAN_AVERAGE_PRECISION, RetrievalScore
from engine.tasks.task import CommonScore, Score, Scored


class RetrievalTask(ClassificationTask):
    """Labels to train on are int64 classes; those of ``test`` hold identities, cameras and roles.

    Where a set has classes only, every picture of a split is query and gallery in turn.
    """

    headline: ClassVar[Metric] = MEAN_AVERAGE_PRECISION
    scored: ClassVar[Scored] = "features"

    def final_term(self) -> Term:
        """Return cross-entropy of the network's logits, with the recipe's label smoothing."""
        return Classification(self._own.label_smoothing)

    def further_terms(self) -> dict[str, tuple[Term, float]]:
        """Return the batch-hard triplet loss, if the recipe gives it a weight."""
        if not self._own.triplet_weight:
            return {}
        return {BatchHardTriplet.name: (BatchHardTriplet(self._own.triplet_margin), self._own.triplet_weight)}

    @property
    def _own(self) -> Retrieval:
        assert isinstance(self.settings, Retrieval)
        return self.settings

    def score(self) -> Score:
        """Return an empty score of mean average precision and ranks."""
        return RetrievalScore()

    def kept(self, score: Score) -> tuple[Tensor, Tensor]:
        """Return the normalised features and packed labels of all pictures so far."""
        assert isinstance(score, RetrievalScore)
        return score.kept()

    def common_score(self) -> CommonScore:
        """Return an empty score of the features of a cohort's networks side by side."""
        return RetrievalCohortScore()


TASK = RetrievalTask
