"""A recipe: everything that decides what a run computes, as one frozen typed value that prints, saves and compares."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from colortrain.lab import Codec, SymmetricCodec
from colortrain.losses.adversarial import BCE, Adversarial
from colortrain.losses.appearance import ColourfulnessGap, LogError, SoftAccuracy
from colortrain.losses.colour_bins import ColourBins
from colortrain.losses.penalty import GradientPenalty
from colortrain.losses.perceptual import Perceptual
from colortrain.losses.rebalanced import RebalancedL1
from colortrain.losses.reconstruction import L1, L2
from colortrain.models.deep_unet import DeepUNetConfig
from colortrain.models.fully_convolutional import FullyConvolutionalConfig, SameCriticConfig
from colortrain.models.global_critic import GlobalCriticConfig
from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.pix2pix import UNetConfig
from colortrain.models.res_unet import ResUNetConfig
from colortrain.models.residual_unet import ResidualUNetConfig
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.models.shallow_unet import ShallowUNetConfig
from colortrain.models.square_critic import SquareCriticConfig
from colortrain.schedule import Schedule, constant
from colortrain.serialize import from_plain, to_plain, with_override
from shards.errors import UserError
from shards.files import write_atomic

# The parts a recipe may be made of; a new one is added to its union here, and nowhere else.
Generator = (
    UNetConfig
    | ResUNetConfig
    | ShallowUNetConfig
    | FullyConvolutionalConfig
    | DeepUNetConfig
    | ResNet18UNetConfig
    | ResidualUNetConfig
)
Critic = PatchCriticConfig | GlobalCriticConfig | SameCriticConfig | SquareCriticConfig
Reconstruction = (
    L1 | L2 | RebalancedL1 | Perceptual | ColourBins | ColourfulnessGap | LogError | SoftAccuracy
)

# How long a run is and how often it tells and saves: these may change when a run goes on (but see `Recipe.resumable_fields`).
_EVERY = ("log_every", "evaluate_every", "checkpoint_every", "keep_checkpoints")
_LENGTH = ("images", "epochs")
_LEAST = {
    **dict.fromkeys(("size", "batch_size", "n_critic", "n_generator", *_EVERY), 1),
    "keep_every": 0,
    "span": 0,
}
_LONGEST = 10**12  # images or epochs
RESUMABLE_FIELDS = (*_LENGTH, *_EVERY, "keep_every", "keep_best")


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Kingma and Ba 2015."""

    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    eps: float = 1e-8
    clip: float = 0.0  # largest norm of all gradients together; 0: any
    muon: float = 0.0  # rate of hidden weights' steps, which are Muon's (Jordan et al. 2024) then; 0: Adam's for all

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if min(self.eps, self.clip, self.muon) < 0:
            raise ValueError(
                f"eps, clip and muon must not be negative, got {self.eps}, {self.clip} and {self.muon}"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")


@dataclass(frozen=True, kw_only=True)
class EMA:
    """Exponential moving average of the generator: `half_life` in images, or as a `share` of the run; 0: none."""

    half_life: float = 0.0
    share: float = 0.0

    def __post_init__(self) -> None:
        if min(self.half_life, self.share) < 0:
            raise ValueError(
                f"half_life and share must not be negative, got {self.half_life} and {self.share}"
            )
        if self.half_life and self.share:
            raise ValueError("half_life is in images, share of the run: give one of them")

    def __bool__(self) -> bool:
        return bool(self.half_life or self.share)

    def decay(self, images: int, total: int) -> float:
        """How much of the average stays after a step over `images`, in a run over `total`."""
        return 0.5 ** (images / (self.half_life or self.share * total))


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Multiply the learning rates by `factor` when `patience` evaluations in a row brought no lower validation L1.

    `patience` 0 switches it off. The state (best, evaluations since, factor so far) is part of a checkpoint.
    """

    patience: int = 0
    factor: float = 0.1

    def __post_init__(self) -> None:
        if self.patience < 0 or not 0 < self.factor < 1:
            raise ValueError(
                f"patience must be 0 or more and factor in (0, 1), got {self.patience}, {self.factor}"
            )


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The generator minimises adversarial_weight * adversarial + the sum of weighted reconstruction terms."""

    adversarial: Adversarial = BCE()
    adversarial_weight: Schedule = constant(1.0)
    critic_from: float = 0.0  # epoch at which the critic begins to learn
    reconstruction: tuple[Reconstruction, ...] = (L1(),)
    penalties: tuple[GradientPenalty, ...] = ()

    def __post_init__(self) -> None:
        for terms in (self.reconstruction, self.penalties):
            names = [term.name for term in terms]
            if len(set(names)) < len(names):
                raise ValueError(f"terms of one name would hide each other: {', '.join(names)}")
        if not self.reconstruction and not self.has_adversarial_weight:
            raise ValueError(
                "the generator has nothing to minimise: no reconstruction, adversarial_weight 0"
            )

    @property
    def has_adversarial_weight(self) -> bool:
        """Whether the adversarial weight is other than 0 at any time."""
        return any(value for _, value in self.adversarial_weight.points)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run, but for data and devices. Time is counted in images; epochs are images / dataset size."""

    name: str
    size: int  # pixels, height and width of training pictures
    batch_size: int  # global: over all processes
    epochs: float
    images: int | None = None  # if given, overrides epochs
    span: float = 0.0  # epochs of the schedules that a run of any length goes through; 0: they go by the data's own
    generator: Generator
    critic: Critic | None = None  # None: reconstruction losses only, no adversarial training
    generator_adam: Adam = Adam()
    critic_adam: Adam = Adam()
    learning_rate: Schedule = constant(1.0)  # factor on both rates
    objective: Objective = Objective()
    plateau: Plateau = Plateau()
    codec: Codec = SymmetricCodec()
    n_critic: int = 1  # critic steps for one generator step
    n_generator: int = 1  # generator steps for one critic step
    flip: float = 0.5  # probability of a horizontal flip in training
    crop: float = 1.0  # least side of a random square crop, as a share of the picture; 1: none
    ema: EMA = EMA()
    sync_batch_norm: bool = (
        False  # BatchNorm over all processes' pictures; else each takes its own share's
    )
    test_dropout: bool = False  # keep dropout on when generating (Isola et al. 2017, section 3.2)
    seed: int = 0
    log_every: int = 20  # steps
    evaluate_every: int = 500  # steps
    checkpoint_every: int = 500  # steps
    keep_checkpoints: int = 2  # the newest so many
    keep_every: int = 0  # steps: of older checkpoints those at its multiples stay as well; 0: none
    keep_best: str = (
        ""  # a metric (l1, psnr, ...): the best checkpoint by it stays too, made at every new best
    )
    paper: str = ""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be in [0, 2^63), got {self.seed}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is a probability, got {self.flip}")
        if not 0 < self.crop <= 1:
            raise ValueError(
                f"crop is a share of the picture's side, above 0 and at most 1, got {self.crop}"
            )
        if min(self.n_critic, self.n_generator) > 1:
            raise ValueError("n_critic and n_generator cannot both be above 1")
        if min(value for _, value in self.learning_rate.points) < 0:
            raise ValueError("learning_rate must not be negative: steps would lead uphill")
        if not 0 < (length := self.epochs if self.images is None else self.images) <= _LONGEST:
            raise ValueError(
                f"images and epochs must be above 0 and at most {_LONGEST:,}, got {length}"
            )

    def check(self) -> None:
        """Raise `UserError` if the parts do not fit together; apart, so that `--set` may go in any order."""
        self._check_critic()
        self._check_channels()
        self._check_size()
        if self.keep_every % self.checkpoint_every:
            raise UserError(
                f"recipe {self.name}: keep_every={self.keep_every} is no multiple of checkpoint_every="
                f"{self.checkpoint_every}: there would be nothing to keep"
            )

    def _check_critic(self) -> None:
        if self.critic is not None:
            return
        reasons = {
            "objective.adversarial_weight is not 0": self.objective.has_adversarial_weight,
            "objective.penalties is not empty": self.objective.penalties,
            f"n_critic is {self.n_critic}, not 1": self.n_critic > 1,
        }
        for reason, applies in reasons.items():
            if applies:
                raise UserError(
                    f"recipe {self.name} has no critic, but {reason}: "
                    "give the recipe a critic, or change that field"
                )

    def _check_channels(self) -> None:
        if self.generator.outputs != self.codec.channels:
            raise UserError(
                f"recipe {self.name}: the generator makes {self.generator.outputs} channels, "
                f"{type(self.codec).__name__} has {self.codec.channels}: change one of them"
            )
        if self.critic is not None and self.critic.inputs != 1 + self.codec.channels:
            raise UserError(
                f"recipe {self.name}: the critic takes {self.critic.inputs} channels, "
                f"L and {type(self.codec).__name__}'s colour are {1 + self.codec.channels}: set critic.inputs"
            )

    def _check_size(self) -> None:
        for term in self.objective.reconstruction:
            if isinstance(term, ColourfulnessGap) and term.cell > self.size:
                raise UserError(
                    f"recipe {self.name}: {term.name}: cell={term.cell} is more than {self.size} pixels"
                )
        for name, network in self.network_configs.items():
            try:
                network.check_size(self.size)
            except ValueError as error:
                raise UserError(f"recipe {self.name}: {name}: {error}") from None

    @property
    def network_configs(self) -> dict[str, Generator | Critic]:
        """The configs of the generator and, if the recipe has one, the critic."""
        configs: dict[str, Generator | Critic] = {"generator": self.generator}
        return configs if self.critic is None else {**configs, "critic": self.critic}

    def build_networks(self) -> tuple[nn.Module, nn.Module | None]:
        """Build the generator and the critic (None if the recipe has none).

        They are on torch's default device. The generator is built first, so its initial
        weights do not depend on whether there is a critic.
        """
        generator = self.generator.build()
        return generator, None if self.critic is None else self.critic.build()

    def total_images(self, dataset_size: int) -> int:
        """How many images the run sees in all."""
        return self.images if self.images is not None else max(1, round(self.epochs * dataset_size))

    @property
    def resumable_fields(self) -> tuple[str, ...]:
        """Fields that may change when a run goes on; not its length, where schedules or averages are shares of it."""
        return (
            tuple(name for name in RESUMABLE_FIELDS if name not in _LENGTH)
            if self.span or self.ema.share
            else RESUMABLE_FIELDS
        )

    @property
    def digest(self) -> str:
        """Names the recipe but for its pace: runs with equal digests compute the same things."""
        as_read = to_plain(
            parse_recipe(to_plain(self), self.name)
        )  # 19 in a recipe's code is 19.0 in its file
        plain = {
            name: value for name, value in as_read.items() if name not in self.resumable_fields
        }
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """`recipe` with every `field=value` of `--set` applied in turn."""
    for assignment in assignments:
        recipe = with_override(recipe, assignment)
    return recipe


def differences(one: Recipe, other: Recipe) -> list[str]:
    """The fields in which two recipes compute different things, as "field: one -> other"."""
    first, second = to_plain(one), to_plain(other)
    names = [
        name for name in first if name not in one.resumable_fields and first[name] != second[name]
    ]
    return [f"{name}: {first[name]} -> {second[name]}" for name in names]


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe as JSON; `--recipe FILE` takes it back."""
    write_atomic(path, json.dumps(to_plain(recipe), indent=1).encode() + b"\n")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe that `save_recipe` wrote; raises `UserError` naming what does not fit."""
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"no recipe file {path}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    return parse_recipe(document, str(path))


def parse_recipe(document: object, where: str) -> Recipe:
    """The recipe a plain JSON value stands for."""
    recipe = from_plain(Recipe, document, where)
    assert isinstance(recipe, Recipe)
    return dataclasses.replace(recipe)
