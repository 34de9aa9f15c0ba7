"""Deeply supervised nets (Lee, Xie, Gallagher, Zhang, Tu 2015): linear classifiers on hidden features.

    L = loss(z, y) + w f(e) sum_m [loss(z_m, y) - gamma]_+

z_m are pooled linear heads on the outputs of blocks; f falls with the epochs. The heads are cut off afterwards.
"""

from __future__ import annotations

from engine.methods.branched_network import METHOD

__all__ = ["METHOD"]
