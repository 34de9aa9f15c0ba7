"""Mixed knowledge fraction (Tang, Ye, Lin, Chen): group knowledge that is also learned from mixed images.

    x = lambda x_a + (1 - lambda) x_b                     (or an area of x_b in x_a: CutMix)
    L = lambda CE(p, y_a) + (1 - lambda) CE(p, y_b) + beta KL(lambda K_{t-1,a} + (1 - lambda) K_{t-1,b} || p)

What is predicted for x is split into knowledge of x_a and of x_b by the rule `fraction`. After a warm-up half of the
steps are mixed; the others are those of GKT.
"""

from __future__ import annotations

from engine.methods.group_knowledge import METHOD

__all__ = ["METHOD"]
