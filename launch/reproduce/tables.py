"""The tables that `colortrain reproduce` makes: their networks, data and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from colortrain.recipes import RECIPES
from launch.experiment.options import Network, unchanged
from launch.experiment.sets import Sets
from launch.reproduce import datasets
from shards.sources.cifar10 import SIDE

_SCALED_WIDTH = 16  # base channels where a table compares recipes at a reduced width


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of `colortrain reproduce`.

    about: what it shows, for --help; networks: its rows; size: default side of the
    images in pixels; base_channels: default width of the networks, or None for the
    published width; build: builds the shard sets, from the source, a folder and the
    size; metrics: the metrics in the first columns, those of the paper first; history,
    full_images: see `ExperimentOptions`; labelled: whether the source has class labels,
    on which a classifier is trained for a Fréchet distance.
    """

    about: str
    networks: tuple[Network, ...]
    size: int
    base_channels: int | None = None
    build: Callable[[Path, Path, int], Sets]
    metrics: tuple[str, ...] = ()
    history: bool = True
    full_images: int | None = None
    labelled: bool = False


def _changed(recipe: str, suffix: str, *settings: str) -> Network:
    return Network(recipe=recipe, name=f"{recipe}-{suffix}", settings=settings)


def _depths(recipe: str) -> tuple[Network, ...]:
    return tuple(_changed(recipe, f"depth{n}", f"generator.depth={n}") for n in (2, 3, 4))


def _penalties(recipe: str) -> tuple[Network, ...]:
    weights = ("0", "0.1")  # 0.3 is the recipe's own
    field = "objective.penalties.0.weight"
    return tuple(_changed(recipe, f"penalty{each}", f"{field}={each}") for each in weights)


TABLES: dict[str, Table] = {
    "nampouri": Table(
        about="both networks of Nampouri et al.; SOURCE: photographs of COCO 2014, of which 8,000 "
        "are used for training and 2,000 for the scores",
        networks=unchanged("nampouri_unet", "nampouri_resnet18"),
        size=256,
        build=datasets.build_nampouri,
        metrics=("l1",),
    ),
    "nazeri": Table(
        about="the GAN and the U-Net of Nazeri et al. on CIFAR-10; SOURCE: CIFAR-10's folder. All "
        "10,000 test images are scored; 5,000 training images steer the learning rates instead",
        networks=unchanged("nazeri_gan", "nazeri_unet_l2"),
        size=SIDE,
        build=datasets.build_nazeri,
        metrics=("mae", "accuracy_2", "accuracy_5"),
        full_images=10_000_000,  # 200 epochs of 50,000
        labelled=True,
    ),
    "nazeri-places": Table(
        about="the GAN of Nazeri et al. on Places365; SOURCE: folder of its photographs",
        networks=unchanged("nazeri_gan_places"),
        size=256,
        build=datasets.build_places,
        metrics=("mae", "accuracy_2", "accuracy_5"),
    ),
    "arun": Table(
        about="the network of Arun with both objectives; SOURCE: photographs of MIRFLICKR-25k, of "
        "which 5,000 are used for training and, as in the paper, also for the scores",
        networks=unchanged("arun_wgan_gp", "arun_wgan_gp_adversarial"),
        size=224,
        build=datasets.build_arun,
        metrics=("inception_score", "fid_diagonal"),
    ),
    "drouilhet": Table(
        about="table 3 of Drouilhet and L'Herminé, their three networks; SOURCE: photographs of "
        "COCO",
        networks=unchanged("drouilhet_gan", "drouilhet_wgan_gp", "drouilhet_progan"),
        size=256,
        build=datasets.build_drouilhet,
        metrics=("psnr", "vgg_distance"),
    ),
    "valentini": Table(
        about="figures 5, 8, 9 and 11 of Valentini and Nagaro Quiroz: depths and penalty weights; "
        "SOURCE: photographs of ImageNet, of which 10,000 are used for training and 3,000 for "
        "the scores",
        networks=(
            *_depths("valentini_cgan"),
            *_depths("valentini_wgan"),
            *_penalties("valentini_wgan"),
            *unchanged("valentini_wgan_literal"),
            *_penalties("valentini_wgan_literal"),
        ),
        size=256,
        build=datasets.build_valentini,
        metrics=("l1", "psnr", "bright_spots", "sepia"),
    ),
    "cifar10": Table(
        about="all recipes on CIFAR-10, each trained on the same number of images; SOURCE: "
        "CIFAR-10's folder",
        networks=unchanged(*RECIPES),
        size=SIDE,
        base_channels=_SCALED_WIDTH,
        build=datasets.build_cifar10,
        history=False,
        full_images=500_000,  # about 10 epochs
        labelled=True,
    ),
    "photos": Table(
        about="all recipes on a folder of photographs at 64 px; SOURCE: the folder",
        networks=unchanged(*RECIPES),
        size=64,
        base_channels=_SCALED_WIDTH,
        build=datasets.build_photos,
        history=False,
        full_images=150_000,
    ),
}


def select(table: Table, recipes: list[str]) -> tuple[Network, ...]:
    """Return the networks of a table whose recipes are given; all if none is given.

    A recipe that the table does not have is added to it.
    """
    if not recipes:
        return table.networks
    known = {network.recipe for network in table.networks}
    added = unchanged(*(name for name in recipes if name not in known))
    return (*(network for network in table.networks if network.recipe in recipes), *added)
