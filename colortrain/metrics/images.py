"""Metrics of single pictures, against the true ones: every function returns one number a picture, shape (B,).

`lab` is (B, 3, H, W) in CIELAB units, `rgb` is (B, 3, H, W) in [0, 1]. A new metric is one entry of `PAIRED` (needs
the truth) or `SINGLE` (does not).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from colortrain.lab import lab_to_rgb

MSE_FLOOR = 1e-10  # equal pictures score 100 dB instead of infinity, which no mean survives
_WINDOW = 11  # pixels: a Gaussian of sigma 1.5 cut at 3.5 sigma
_MARGIN = _WINDOW // 2


@dataclass(frozen=True)
class Pictures:
    """A batch of pictures in CIELAB units, (B, 3, H, W), seen as Lab or as clipped RGB."""

    lab: Tensor

    @cached_property
    def rgb(self) -> Tensor:
        """sRGB in [0, 1], clipped."""
        return lab_to_rgb(self.lab)

    def with_ab(self, ab: Tensor | float) -> Pictures:
        """The same L with other colours: `ab` is (B, 2, H, W) in CIELAB units, or one number for all (0 is grey)."""
        chosen = torch.as_tensor(ab, dtype=self.lab.dtype, device=self.lab.device)
        return Pictures(torch.cat([self.lab[:, :1], chosen.expand_as(self.lab[:, 1:])], dim=1))


def l1(lab: Tensor, truth: Tensor) -> Tensor:
    """Mean |difference| of a and b in units of 110, whatever the run's codec (nampouri section 6)."""
    return (lab[:, 1:] - truth[:, 1:]).abs().mean(dim=(1, 2, 3)) / 110


def mse(rgb: Tensor, truth: Tensor) -> Tensor:
    """Mean squared difference of RGB in [0, 1]."""
    return (rgb - truth).square().mean(dim=(1, 2, 3))


def psnr(mean_squared: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of mean squared differences of RGB in [0, 1]; at most 100 dB (`MSE_FLOOR`)."""
    return -10 * torch.log10(mean_squared.clamp(min=MSE_FLOOR))


def ssim(rgb: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004): Gaussian window, sigma 1.5, mean of the three channels.

    Only pixels whose whole 11-pixel window lies inside count, as in the paper and scikit-image; below 11 px the
    window is reflected at the border and all pixels count. Raises `ValueError` below 6 px.
    """
    height, width = rgb.shape[-2:]
    if min(height, width) <= _MARGIN:
        raise ValueError(f"SSIM needs pictures of at least {_MARGIN + 1} px, got {height}x{width}")
    found = structural_similarity_index_measure(rgb, truth, data_range=1.0, reduction="none", return_full_image=True)
    local = found[1]
    if min(height, width) >= _WINDOW:
        local = local[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return local.mean(dim=(1, 2, 3))


def colourfulness(rgb: Tensor) -> Tensor:
    """Hasler and Süsstrunk 2003, M3 (equation 15, section 7): 0 for grey, about 15 slightly to 109 extremely colourful.

    For RGB in 0..255, as the paper's scale is.
    """
    red, green, blue = (255 * rgb).flatten(2).unbind(1)
    opponent = torch.stack([red - green, (red + green) / 2 - blue])
    spread = opponent.std(dim=-1, correction=0).square().sum(0).sqrt()
    return spread + 0.3 * opponent.mean(dim=-1).square().sum(0).sqrt()


PAIRED: dict[str, Callable[[Pictures, Pictures], Tensor]] = {
    "l1": lambda found, truth: l1(found.lab, truth.lab),
    "mse": lambda found, truth: mse(found.rgb, truth.rgb),
    "psnr": lambda found, truth: psnr(mse(found.rgb, truth.rgb)),
    "ssim": lambda found, truth: ssim(found.rgb, truth.rgb),
}
SINGLE: dict[str, Callable[[Pictures], Tensor]] = {
    "colourfulness": lambda found: colourfulness(found.rgb),
}


def per_image(generated: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Every metric of each picture: "l1.generated", "l1.grey", "colourfulness.truth", ... to (B,) float64.

    `generated` and `truth` are (B, 3, H, W) in CIELAB units. Grey is ab = 0 under the true L.
    """
    true = Pictures(truth.float())
    versions = {"generated": Pictures(generated.float()), "grey": true.with_ab(0)}
    rows = {f"{m}.{v}": paired(shown, true) for m, paired in PAIRED.items() for v, shown in versions.items()}
    versions["truth"] = true
    return rows | {f"{m}.{v}": single(shown) for m, single in SINGLE.items() for v, shown in versions.items()}
