"""Registry of analyses: each is a file of its own and a line here."""

from __future__ import annotations

from engine.analysis.analysis import Analysis
from engine.analysis.cam import Cam
from engine.analysis.embedding import Embedding
from engine.analysis.flatness import Flatness
from engine.analysis.fractions import Fractions
from engine.analysis.gradients import GradientAgreement
from engine.analysis.information import Information
from engine.analysis.posterior import Posterior
from engine.analysis.separability import Separability
from engine.analysis.similarity import Similarity
from engine.analysis.topmass import TopMass
from engine.analysis.tsne import TSNE

ANALYSES: dict[str, Analysis] = {
    each.name: each
    for each in (
        Posterior(),
        TopMass(),
        Similarity(),
        Cam(),
        GradientAgreement(),
        Separability(),
        Information(),
        Flatness(),
        Fractions(),
        Embedding(),
        TSNE(),
    )
}
"""By the word behind ``--of``, in the order in which they are done."""
