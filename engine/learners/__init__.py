"""Learners: what an actor owns, its phases, its optimizer and its state."""

from engine.learners.branched import SideBranch, Trunk
from engine.learners.bystander import Bystander
from engine.learners.failures import explain
from engine.learners.frozen_peers import FrozenPeer
from engine.learners.knowledge_keeper import KnowledgeKeeper
from engine.learners.learner import Learner
from engine.learners.lost_replica import LostReplica
from engine.learners.member import Member, PhaseFunction
from engine.learners.numerics import choose_device, numerics_applied
from engine.learners.optimization import learning_rate, make_optimizer
from engine.learners.replicas import PATIENCE, Replicas, name_without_replica, replica_name
from engine.learners.role import Role, Stated
from engine.learners.state import LearnerState
from engine.learners.teacher import Teacher

__all__ = [
    "Bystander",
    "FrozenPeer",
    "KnowledgeKeeper",
    "Learner",
    "LearnerState",
    "LostReplica",
    "Member",
    "PATIENCE",
    "PhaseFunction",
    "Replicas",
    "Role",
    "SideBranch",
    "Stated",
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
