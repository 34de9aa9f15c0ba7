"""Deep supervision by rich branches, the baseline of Li and Chen (2020): sum_j CE(z_j, y) over the network's head and
those of branches that repeat the rest of the network, the lower ones in shorter and the top one in wider form.
"""

from __future__ import annotations

from engine.methods.branched_network import METHOD

__all__ = ["METHOD"]
