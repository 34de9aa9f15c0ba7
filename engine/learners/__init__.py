"""Learners: what an actor owns, its phases, its optimizer and its state."""

from engine.learners.finite import NotFinite
from engine.learners.frozen_peers import FrozenPeer
from engine.learners.knowledge_server import KnowledgeServer
from engine.learners.learner import Learner
from engine.learners.lost_replica import LostReplica
from engine.learners.member import Member, PhaseFunction, UntrainedMember, explain
from engine.learners.numerics import choose_device, numerics_applied
from engine.learners.optimization import learning_rate, make_optimizer
from engine.learners.replicas import PATIENCE, Replicas, name_without_replica, replica_name
from engine.learners.role import Output, Role
from engine.learners.split_training import SideBranch, Trunk
from engine.learners.teacher import Teacher

__all__ = [
    "UntrainedMember",
    "FrozenPeer",
    "KnowledgeServer",
    "Learner",
    "LostReplica",
    "NotFinite",
    "Member",
    "PATIENCE",
    "PhaseFunction",
    "Replicas",
    "Role",
    "SideBranch",
    "Output",
    "Teacher",
    "Trunk",
    "choose_device",
    "explain",
    "learning_rate",
    "make_optimizer",
    "name_without_replica",
    "numerics_applied",
    "replica_name",
]
