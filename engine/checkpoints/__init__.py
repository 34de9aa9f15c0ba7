"""Checkpoints: states of learners, consistent cuts of a whole team on disk, and knowledge stores in them."""

from engine.checkpoints.earlier_versions import SELF_DISTILLATION
from engine.checkpoints.folders import (
    CHECKPOINT_VERSION,
    Checkpoint,
    newest_checkpoint,
    read_checkpoint,
    refuse_newer,
    require_checkpoint,
    save_checkpoint,
)
from engine.checkpoints.state import KNOWLEDGE_FOLLOWS, LearnerState, pack_state, unpack_state

__all__ = [
    "CHECKPOINT_VERSION",
    "KNOWLEDGE_FOLLOWS",
    "SELF_DISTILLATION",
    "Checkpoint",
    "LearnerState",
    "newest_checkpoint",
    "pack_state",
    "read_checkpoint",
    "refuse_newer",
    "require_checkpoint",
    "save_checkpoint",
    "unpack_state",
]
