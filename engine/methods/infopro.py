"""InfoPro (Wang, Ni, Song, Yang, Huang 2021): every segment keeps what its features know of the image and the class.

    L_k = lambda_1(k) * BCE(decoder_k(h_k), x) + lambda_2(k) * T_k
    T_k = CE(head_k(h_k), y)  or  SupCon(head_k(h_k), y)

an upper bound of alpha * [-I(h; x) + beta * I(r*; h)] up to a constant, with lambda_1 = alpha * (1 - beta) and
lambda_2 = alpha * beta (paper, equations 2 to 5). Both weights change linearly over the K - 1 local losses. x is
the augmented image in [0, 1]. A term of weight 0 is not built. Where asked for, the decoder sees a random part of
each batch; this is ours, not the paper's.
"""

from __future__ import annotations

from engine.data import Facts
from engine.errors import RecipeError
from engine.methods.chain import Chain
from engine.methods.tasks import local_term, require_classes
from engine.objectives import (
    EMBEDDING_SIZE,
    Contrastive,
    Objective,
    Reconstruction,
    Term,
    head_for,
)
from engine.partition import Segment
from engine.recipes import InfoPro, Recipe
from engine.recipes.methods.local_learning import Head
from engine.tasks import task_of


def local_objective(recipe: Recipe, facts: Facts, segment: Segment) -> Objective:
    """Return the objective of a segment that is not the last."""
    method = recipe.method
    assert isinstance(method, InfoPro)
    reconstruction = method.reconstruction_weight.at(segment.index, segment.count)
    classification = method.classification_weight.at(segment.index, segment.count)
    if reconstruction == 0 and classification == 0:
        raise RecipeError(
            f"method.reconstruction_weight and method.classification_weight are both 0 in {segment.name}, which would "
            "learn nothing: give one of them a first and last value above 0, as in method.reconstruction_weight=1"
        )
    terms: dict[str, Term] = {}
    if reconstruction > 0:
        decoder = task_of(recipe, facts).decoder(segment.features, facts.image_shape)
        terms["reconstruction"] = Reconstruction(decoder, method.reconstruction_share or 1.0, recipe.seed)
    weights = {"reconstruction": reconstruction}
    if classification > 0:
        term = _task_term(recipe, facts, segment, method.head)
        terms[term.name], weights[term.name] = term, classification
    return Objective(terms, weights)


def _task_term(recipe: Recipe, facts: Facts, segment: Segment, head: Head) -> Term:
    if head != "contrastive":
        return local_term(recipe, facts, segment, "infopro")
    require_classes(recipe, facts, "method.head=contrastive", "set method.head=softmax")
    return Contrastive(head_for(segment.features, facts.image_shape, EMBEDDING_SIZE, segment.final_channels))


METHOD = Chain(local_objective)
