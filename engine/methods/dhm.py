"""Dynamic hierarchical mimicking (Li and Chen 2020), and with T = 1 deeply-supervised knowledge synergy (Sun et al.).

    L = CE(z_0, y) + w sum_{j>0} CE(z_j, y) + alpha sum_j sum_{k != j} T^2 KL(p_k || p_j)

over the network's own head j = 0 and those of its branches; no gradient flows into the teachers' p_k. Which ordered
pairs (j, k) count is decided anew in every step where `directions` says so.

The biases of the linear layers of wide ResNets and DenseNets start at 0, as those networks' own authors have it, and
not as torch draws them, as in the code released with this method: the network is the one that every other method
trains, so that with `weight=0` and `label_weight=0` it is plain training bit by bit.
"""

from __future__ import annotations

from engine.methods.branched_network import METHOD

__all__ = ["METHOD"]
