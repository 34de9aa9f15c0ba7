"""PredSim (Nokland and Eidnes 2019): a prediction loss and a similarity-matching loss on every segment.

    L_k = (1 - b) * CE(linear(avgpool(h_k)), y) + b * MSE(S(conv3x3(h_k)), S(onehot(y)))

with b = 0.99. The paper trains plain wide VGGs layer by layer with Adam; on thin residual networks it does poorly.
"""

from __future__ import annotations

from engine.data import Facts
from engine.methods.chain import Chain
from engine.objectives import AuxiliaryClassification, Objective, SimilarityMatching, prediction_head
from engine.partition import Segment
from engine.recipes import PredSim, Recipe


def local_objective(recipe: Recipe, facts: Facts, segment: Segment) -> Objective:
    """Return the objective of a segment that is not the last."""
    method = recipe.method
    assert isinstance(method, PredSim)
    head = prediction_head(segment.features, facts.num_classes, method.prediction_features)
    share = method.similarity_weight
    return Objective(
        {
            "prediction": AuxiliaryClassification(head),
            "similarity": SimilarityMatching(segment.features, facts.num_classes),
        },
        {"prediction": 1.0 - share, "similarity": share},
    )


METHOD = Chain(local_objective)
