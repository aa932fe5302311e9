"""Metrics of single pictures, against the true ones: every function returns one number a picture, shape (B,).

`lab` is (B, 3, H, W) in CIELAB units, `rgb` is (B, 3, H, W) in [0, 1]. A new metric is one entry of `PAIRED` (needs
the truth), `WITH_OWN_L` (and sees the L the network made), `PAIRED_SLOW` (not while training) or `SINGLE` (no truth).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from colortrain.lab import lab_to_rgb
from colortrain.metrics.accuracy import accuracy, mae, mae_lab
from colortrain.metrics.collapse import bright_spots, sepia

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
    found = structural_similarity_index_measure(
        rgb, truth, data_range=1.0, reduction="none", return_full_image=True
    )
    local = found[1]
    if min(height, width) >= _WINDOW:
        local = local[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return local.mean(dim=(1, 2, 3))


def colourfulness(rgb: Tensor) -> Tensor:
    """Hasler and Süsstrunk 2003, M3 (equation 15, section 7): 0 for grey, about 15 slightly to 109 extremely colourful.

    For RGB in 0..255, as the paper's scale is.
    """
    red, green, blue = (255 * rgb).flatten(2).unbind(1)
    return _colourfulness(torch.stack([red - green, (red + green) / 2 - blue]))


def colourfulness_absolute(rgb: Tensor) -> Tensor:
    """The variant that colorization benchmarks print as colourfulness: spreads and means of |R - G| and |Y - B|."""
    red, green, blue = (255 * rgb).flatten(2).unbind(1)
    return _colourfulness(torch.stack([red - green, (red + green) / 2 - blue]).abs())


def _colourfulness(opponent: Tensor) -> Tensor:
    spread = opponent.std(dim=-1, correction=0).square().sum(0).sqrt()
    return spread + 0.3 * opponent.mean(dim=-1).square().sum(0).sqrt()


# By what they see of a generated picture: it has the true L in all but `WITH_OWN_L`.
PAIRED: dict[str, Callable[[Pictures, Pictures], Tensor]] = {
    "l1": lambda found, truth: l1(found.lab, truth.lab),
    "mse": lambda found, truth: mse(found.rgb, truth.rgb),
    "psnr": lambda found, truth: psnr(mse(found.rgb, truth.rgb)),
    "bright_spots": lambda found, truth: bright_spots(found.lab, truth.lab),
    "accuracy_ab_2": lambda found, truth: accuracy(found.lab, truth.lab, 2, slice(1, 3)),
    "accuracy_ab_5": lambda found, truth: accuracy(found.lab, truth.lab, 5, slice(1, 3)),
}
WITH_OWN_L: dict[str, Callable[[Pictures, Pictures], Tensor]] = {
    "accuracy_2": lambda found, truth: accuracy(found.lab, truth.lab, 2),
    "accuracy_5": lambda found, truth: accuracy(found.lab, truth.lab, 5),
    "mae": lambda found, truth: mae(found.lab, truth.lab),
    "mae_lab": lambda found, truth: mae_lab(found.lab, truth.lab),
}
SINGLE: dict[str, Callable[[Pictures], Tensor]] = {
    "colourfulness": lambda found: colourfulness(found.rgb),
    "colourfulness_absolute": lambda found: colourfulness_absolute(found.rgb),
    "sepia": lambda found: sepia(found.lab),
}
PAIRED_SLOW: dict[
    str, Callable[[Pictures, Pictures], Tensor]
] = {  # 44 ms a 256 px picture on a core, others 5 in all
    "ssim": lambda found, truth: ssim(found.rgb, truth.rgb),
}

Depth = Literal["core", "all"]  # without the slow metrics, or with them


def versions(
    generated: Tensor, truth: Tensor, constant: Sequence[float] | None = None
) -> dict[str, Pictures]:
    """The pictures that are scored: generated, grey (ab = 0), median (where `constant` gives a and b) and truth.

    `generated` and `truth` are (B, 3, H, W) in CIELAB units; all have the true L.
    """
    true = Pictures(truth.float())
    found = {"generated": Pictures(generated.float()), "grey": true.with_ab(0)}
    if constant is not None:
        found["median"] = true.with_ab(torch.tensor(constant).view(2, 1, 1))
    return {**found, "truth": true}


def per_image(
    shown: Mapping[str, Pictures], *, made: Tensor | None = None, metrics: Depth = "all"
) -> dict[str, Tensor]:
    """Every metric of each picture: "l1.generated", "l1.grey", "colourfulness.truth", ... to (B,).

    `shown` is what `versions` gives. `made` is the generated pictures with the L the network made, (B, 3, H, W) in
    CIELAB units, which `WITH_OWN_L` sees; not given, it is the true L.
    """
    true = shown["truth"]
    others = {name: pictures for name, pictures in shown.items() if name != "truth"}
    own = others if made is None else others | {"generated": Pictures(made.float())}
    paired = PAIRED | (PAIRED_SLOW if metrics == "all" else {})
    rows = {
        f"{m}.{v}": measure(found, true)
        for m, measure in paired.items()
        for v, found in others.items()
    }
    rows |= {
        f"{m}.{v}": measure(found, true)
        for m, measure in WITH_OWN_L.items()
        for v, found in own.items()
    }
    return rows | {
        f"{m}.{v}": single(found) for m, single in SINGLE.items() for v, found in shown.items()
    }
