"""The papers' headline scores; the recipes' docstrings cite their sections.

They were measured on the papers' own photographs and image sizes, so they are not
targets for other photographs.
"""

from __future__ import annotations

_NAZERI_PLACES = {"mae": 7.5, "accuracy_2": 18.3, "accuracy_5": 47.3}
_ARUN = {"inception_score": 4.3125, "fid_diagonal": 13.1076}

HEADLINES: dict[str, dict[str, float]] = {
    "nampouri_unet": {"l1": 0.0917},
    "nampouri_resnet18": {"l1": 0.0945},
    "nazeri_unet_l2": {"mae": 7.9, "accuracy_2": 13.7, "accuracy_5": 37.2},
    "nazeri_gan": {"mae": 5.1, "accuracy_2": 24.1, "accuracy_5": 65.5},
    "nazeri_gan_places": _NAZERI_PLACES,
    "arun_wgan_gp": _ARUN,
    "arun_wgan_gp_adversarial": _ARUN,
    "drouilhet_gan": {"psnr": 19.63, "vgg_distance": 4.2968},
    "drouilhet_wgan_gp": {"psnr": 21.41, "vgg_distance": 4.1719},
    "drouilhet_progan": {"psnr": 20.92, "vgg_distance": 3.3715},
}
