"""What does a learner remember of the images that it has seen, and how is it brought to bear on mixed ones?"""

from engine.knowledge.changes import merge_changes
from engine.knowledge.store import Content, KnowledgeStore

__all__ = ["Content", "KnowledgeStore", "merge_changes"]
