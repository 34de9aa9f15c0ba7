"""Objectives: losses, and the auxiliary networks that they need."""

from engine.objectives.branch_mimicry import BranchMimicry, as_message, branch_mimicry, kept_directions
from engine.objectives.branches import Branches, BranchHead
from engine.objectives.classification import (
    AuxiliaryClassification,
    Classification,
    HookedClassification,
    cross_entropy_loss,
    mixed_cross_entropy_loss,
)
from engine.objectives.confidence import ConfidencePenalty, negative_entropy
from engine.objectives.contrastive import EMBEDDING_SIZE, TEMPERATURE, Contrastive, supervised_contrastive_loss
from engine.objectives.decoders import cifar_decoder, decoder_for, dense_decoder, imagenet_decoder
from engine.objectives.deep_supervision import DeepSupervisionSchedule, SquaredHinge, squared_hinge_loss
from engine.objectives.dense_heads import dense_dgl_head, dense_infopro_head, dense_linear_head
from engine.objectives.distance_mimicry import DistanceMimicry
from engine.objectives.feature_mimicry import FeatureMimicry
from engine.objectives.heads import conv_head, dgl_head, head_for, imagenet_head, linear_head, prediction_head
from engine.objectives.interpolation import enlarged
from engine.objectives.knowledge_mimicry import RECALLED, KnowledgeMimicry, knowledge_divergence
from engine.objectives.mimicry import Mimicry, jeffreys, jensen_shannon, kl_divergence, reverse_kl
from engine.objectives.objective import Context, MixedLabels, Objective, ObjectiveValue, Term, TermValue
from engine.objectives.reconstruction import Reconstruction, reconstruction_loss
from engine.objectives.segmentation import HookedPixelClassification, PixelClassification, pixel_cross_entropy
from engine.objectives.similarity import SimilarityMatching, label_similarity, similarity_matrix
from engine.objectives.triplet import BatchHardTriplet, batch_hard_triplet_loss, distance_matrix

__all__ = [
    "EMBEDDING_SIZE",
    "RECALLED",
    "TEMPERATURE",
    "AuxiliaryClassification",
    "BatchHardTriplet",
    "BranchHead",
    "BranchMimicry",
    "Branches",
    "Classification",
    "DeepSupervisionSchedule",
    "ConfidencePenalty",
    "Context",
    "Contrastive",
    "DistanceMimicry",
    "FeatureMimicry",
    "KnowledgeMimicry",
    "Mimicry",
    "MixedLabels",
    "Objective",
    "ObjectiveValue",
    "Reconstruction",
    "SimilarityMatching",
    "SquaredHinge",
    "HookedClassification",
    "HookedPixelClassification",
    "PixelClassification",
    "Term",
    "TermValue",
    "as_message",
    "batch_hard_triplet_loss",
    "branch_mimicry",
    "cifar_decoder",
    "conv_head",
    "cross_entropy_loss",
    "decoder_for",
    "dense_decoder",
    "dense_dgl_head",
    "dense_infopro_head",
    "dense_linear_head",
    "dgl_head",
    "distance_matrix",
    "enlarged",
    "head_for",
    "imagenet_decoder",
    "imagenet_head",
    "jeffreys",
    "jensen_shannon",
    "kept_directions",
    "kl_divergence",
    "knowledge_divergence",
    "label_similarity",
    "mixed_cross_entropy_loss",
    "linear_head",
    "negative_entropy",
    "pixel_cross_entropy",
    "prediction_head",
    "reconstruction_loss",
    "reverse_kl",
    "similarity_matrix",
    "squared_hinge_loss",
    "supervised_contrastive_loss",
]
