"""Group knowledge: what is remembered of each image, and how it is brought to bear on mixed ones."""

from engine.knowledge.changes import merge_changes
from engine.knowledge.store import Content, KnowledgeStore

__all__ = ["Content", "KnowledgeStore", "merge_changes"]
