"""Group knowledge based training (Tang et al., AAAI 2024, arXiv 2308.13772): sub-networks learn from larger ones.

    L = CE(p, y) + beta KL(K_{t-1} || p),      K_t <- alpha p + (1 - alpha) K_t

Each step trains one sub-network, of group t = 0 (the full network), 1, .., T - 1 in turn, each drawn inside the one
before it; K_t is the running mean of what group t predicted for the image.
"""

from __future__ import annotations

from engine.methods.group_knowledge import METHOD

__all__ = ["METHOD"]
