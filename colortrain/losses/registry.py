"""All losses that a recipe may use.

To add one, add its class to one of the two unions in this module.
"""

from __future__ import annotations

from colortrain.losses.adversarial import BCE, LSGAN, Hinge, Wasserstein
from colortrain.losses.appearance import ColourfulnessGap, LogError, SoftAccuracy
from colortrain.losses.colour_bins import ColourBins
from colortrain.losses.perceptual import Perceptual
from colortrain.losses.rebalanced import RebalancedL1
from colortrain.losses.reconstruction import L1, L2

AdversarialLoss = BCE | LSGAN | Wasserstein | Hinge
ReconstructionLoss = (
    L1 | L2 | RebalancedL1 | Perceptual | ColourBins | ColourfulnessGap | LogError | SoftAccuracy
)
