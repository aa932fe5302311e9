"""The recipe: everything that determines what a run computes, in one dataclass."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from colortrain.headline import Headline
from colortrain.lab import Codec, SymmetricCodec
from colortrain.losses.adversarial import BCE
from colortrain.losses.appearance import ColourfulnessGap
from colortrain.losses.penalty import GradientPenalty
from colortrain.losses.reconstruction import L1
from colortrain.losses.registry import AdversarialLoss, ReconstructionLoss
from colortrain.models.memory import check_fields, check_networks
from colortrain.models.registry import CriticConfig, GeneratorConfig
from colortrain.schedule import Schedule, constant
from colortrain.serialize import from_plain, to_plain, with_override
from shards.errors import UserError
from shards.files import write_atomic
from shards.json_files import parse_json

_INTERVALS = ("log_every", "evaluate_every", "checkpoint_every", "keep_checkpoints")
_LENGTH = ("images", "epochs")
_MINIMUM = {
    **dict.fromkeys(("size", "batch_size", "n_critic", "n_generator", *_INTERVALS), 1),
    "keep_every": 0,
    "span": 0,
}
_MAX_LENGTH = 10**12  # images or epochs
_MAX_SIZE = 8192  # pixels: the largest --size of `colortrain shards build`
_TRAINING_COPIES = 4  # of the weights in memory: themselves, gradients, two moments of Adam
# The length of a run, how often it logs, validates and saves, and what only describes
# the paper: these fields may change when a run is resumed (with exceptions, see
# `Recipe.resumable_fields`).
RESUMABLE_FIELDS = (*_LENGTH, *_INTERVALS, "keep_every", "keep_best", "fit", "headline")


@dataclass(frozen=True, kw_only=True)
class Adam:
    """The Adam optimizer (Kingma and Ba 2015), optionally with Muon for hidden weights.

    Raises ValueError for values out of range.
    """

    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    eps: float = 1e-8
    clip: float = 0.0  # maximum norm of all gradients together; 0: no clipping
    muon: float = 0.0  # learning rate of Muon (Jordan et al. 2024); 0: no Muon

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if min(self.eps, self.clip, self.muon) < 0:
            raise ValueError(
                f"eps, clip and muon must not be negative, "
                f"got {self.eps}, {self.clip} and {self.muon}"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")


@dataclass(frozen=True, kw_only=True)
class EMA:
    """Settings of the exponential moving average (EMA) of the generator's weights.

    If both fields are 0, there is no average. Raises ValueError if both are given or
    one is negative.
    """

    half_life: float = 0.0  # half-life in images
    share: float = 0.0  # half-life as a fraction of the run

    def __post_init__(self) -> None:
        if min(self.half_life, self.share) < 0:
            raise ValueError(
                f"half_life and share must not be negative, got {self.half_life} and {self.share}"
            )
        if self.half_life and self.share:
            raise ValueError(
                "half_life (images) and share (fraction of the run): give only one of them"
            )

    def __bool__(self) -> bool:
        return bool(self.half_life or self.share)

    def decay(self, images: int, total: int) -> float:
        """Return the EMA's decay: the factor of the old average in the new one.

        `images` is the number of images in a step, `total` the number in the whole run.
        """
        return 0.5 ** (images / (self.half_life or self.share * total))


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Settings for reducing the learning rates when the validation L1 stops improving.

    Raises ValueError for values out of range.
    """

    patience: int = 0  # validations without a new minimum; 0: never reduce
    factor: float = 0.1  # by which a reduction multiplies the rates

    def __post_init__(self) -> None:
        if self.patience < 0 or not 0 < self.factor < 1:
            raise ValueError(
                f"patience must be 0 or more and factor in (0, 1), "
                f"got {self.patience} and {self.factor}"
            )


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The losses of the generator and of the critic.

    Raises ValueError if two terms have the same name, if the generator has nothing to
    minimise, or if `critic_every` is below 1.
    """

    # The generator minimises `adversarial_weight` times its adversarial loss plus the
    # weighted sum of the `reconstruction` terms. The critic minimises its adversarial
    # loss plus the `penalties`.
    adversarial: AdversarialLoss = BCE()
    adversarial_weight: Schedule = constant(1.0)
    critic_from: float = 0.0  # epoch at which training of the critic starts
    # The critic is updated only in every so many epochs: with 2, in the epochs 0, 2,
    # 4, ... Drouilhet and L'Herminé tried "updating the discriminator only once every
    # other epoch", and rejected it (section 1.3.1, strategy 2).
    critic_every: int = 1
    reconstruction: tuple[ReconstructionLoss, ...] = (L1(),)
    penalties: tuple[GradientPenalty, ...] = ()

    def __post_init__(self) -> None:
        for terms in (self.reconstruction, self.penalties):
            names = [term.name for term in terms]
            if len(set(names)) < len(names):
                raise ValueError(f"terms must have different names, got {', '.join(names)}")
        if self.critic_every < 1:
            raise ValueError(f"critic_every must be at least 1, got {self.critic_every}")
        if not self.reconstruction and not self.has_adversarial_weight:
            raise ValueError(
                "the generator has nothing to minimise: no reconstruction terms, and "
                "adversarial_weight is 0"
            )

    @property
    def has_adversarial_weight(self) -> bool:
        """Whether the adversarial weight is different from 0 at any time in the run."""
        return any(value for _, value in self.adversarial_weight.points)

    def trains_critic(self, epoch: float) -> bool:
        """Return whether the critic is updated at `epoch`, for instance 2.5."""
        return epoch >= self.critic_from and int(epoch) % self.critic_every == 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that defines a run, except its data and its devices.

    Raises ValueError for values out of range; `check` also verifies that the components
    fit together.
    """

    name: str
    size: int  # pixels, height and width of training images
    batch_size: int  # global: over all processes
    epochs: float  # an epoch is as many images as the dataset has
    images: int | None = None  # if given, overrides epochs
    span: float = 0.0  # epochs of the schedules that the whole run covers; 0: actual epochs
    generator: GeneratorConfig
    critic: CriticConfig | None = None  # None: reconstruction losses only, no adversarial training
    generator_adam: Adam = Adam()
    critic_adam: Adam = Adam()
    learning_rate: Schedule = constant(1.0)  # multiplies both learning rates
    objective: Objective = Objective()
    plateau: Plateau = Plateau()
    codec: Codec = SymmetricCodec()
    n_critic: int = 1  # critic steps per generator step
    # Whether each of them has a batch of its own ("fresh", as in Gulrajani et al. 2017,
    # algorithm 1), or all have the batch of the generator step ("same"). Drouilhet and
    # L'Herminé write only "5 updates of C for every 1 update of G" (section 7.4.1).
    # With "same", an epoch has n_critic times as many updates of both networks.
    critic_batches: Literal["fresh", "same"] = "fresh"
    n_generator: int = 1  # generator steps per critic step
    flip: float = 0.5  # probability of a horizontal flip in training
    crop: float = 1.0  # smallest side of a random crop / side of the image; 1: no crop
    ema: EMA = EMA()
    sync_batch_norm: bool = False  # BatchNorm statistics over all processes, not per process
    test_dropout: bool = False  # keep dropout on when generating (Isola et al. 2017, section 3.2)
    seed: int = 0
    log_every: int = 20  # steps
    evaluate_every: int = 500  # steps
    checkpoint_every: int = 500  # steps
    keep_checkpoints: int = 2  # number of the newest checkpoints to keep
    keep_every: int = 0  # steps: checkpoints at multiples of it are kept too; 0: none
    keep_best: str = ""  # a metric (l1, psnr, ...): the best checkpoint by it is kept too
    paper: str = ""
    # how the paper makes images square, as an argument of `colortrain shards build
    # --fit`; None if it does not say; training only warns if the shards differ
    fit: Literal["crop", "squash", "pad"] | None = None
    headline: Headline = Headline()  # what the paper reports; not part of what a run computes

    def __post_init__(self) -> None:
        for name, minimum in _MINIMUM.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"{name} must be at least {minimum}, got {getattr(self, name)}")
        if self.size > _MAX_SIZE:
            raise ValueError(f"size must be at most {_MAX_SIZE}, got {self.size}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be in [0, 2^63), got {self.seed}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is a probability and must be in [0, 1], got {self.flip}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must be above 0 and at most 1, got {self.crop}")
        if min(self.n_critic, self.n_generator) > 1:
            raise ValueError("n_critic and n_generator cannot both be above 1")
        if min(value for _, value in self.learning_rate.points) < 0:
            raise ValueError("learning_rate must not be negative")
        if not 0 < (length := self.epochs if self.images is None else self.images) <= _MAX_LENGTH:
            raise ValueError(
                f"images and epochs must be above 0 and at most {_MAX_LENGTH:,}, got {length}"
            )

    def check(self) -> None:
        """Raise UserError if the components of the recipe do not fit together."""
        # not in the constructor, so that `--set` may change fields in any order
        self._check_critic()
        self._check_channels()
        self._check_size()
        if self.keep_every % self.checkpoint_every:
            raise UserError(
                f"recipe {self.name}: keep_every={self.keep_every} is not a multiple of "
                f"checkpoint_every={self.checkpoint_every}: set it to a multiple"
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
                f"recipe {self.name}: the generator has {self.generator.outputs} output channels, "
                f"{type(self.codec).__name__} requires {self.codec.channels}: change one of them"
            )
        if self.critic is not None and self.critic.inputs != 1 + self.codec.channels:
            raise UserError(
                f"recipe {self.name}: the critic has {self.critic.inputs} input channels, L and "
                f"the colour of {type(self.codec).__name__} have {1 + self.codec.channels}: "
                "set critic.inputs"
            )

    def _check_size(self) -> None:
        for term in self.objective.reconstruction:
            if isinstance(term, ColourfulnessGap) and term.cell > self.size:
                raise UserError(
                    f"recipe {self.name}: {term.name}: cell={term.cell} is more than the "
                    f"image size, {self.size} pixels: set a smaller cell"
                )
        for name, network in self.network_configs.items():
            try:
                check_fields(network)
                network.check_size(self.size)
            except ValueError as error:
                raise UserError(f"recipe {self.name}: {name}: {error}") from None

    @property
    def network_configs(self) -> dict[str, GeneratorConfig | CriticConfig]:
        """The configs of the generator and, if the recipe has one, the critic."""
        configs: dict[str, GeneratorConfig | CriticConfig] = {"generator": self.generator}
        return configs if self.critic is None else {**configs, "critic": self.critic}

    def build_networks(self) -> tuple[nn.Module, nn.Module | None]:
        """Build the generator and the critic (None if the recipe has none).

        Raises UserError if training them needs more memory than the machine has.
        """
        copies = 1 if torch.cuda.is_available() else _TRAINING_COPIES
        check_networks([*self.network_configs.values()], f"training recipe {self.name}", copies)
        # first, so that its initial weights do not depend on whether there is a critic
        generator = self.generator.build()
        return generator, None if self.critic is None else self.critic.build()

    def total_images(self, dataset_size: int) -> int:
        """Return the number of images that the whole run sees, repetitions included.

        `dataset_size` is the number of samples in the training data.
        """
        return self.images if self.images is not None else max(1, round(self.epochs * dataset_size))

    def total_steps(self, dataset_size: int) -> int:
        """Return the number of steps of the whole run; see `total_images`."""
        return -(-self.total_images(dataset_size) // self.batch_size)

    @property
    def resumable_fields(self) -> tuple[str, ...]:
        """Names of the fields that may change when a run is resumed."""
        # the schedules or the EMA depend on the run's length
        if self.span or self.ema.share:
            return tuple(name for name in RESUMABLE_FIELDS if name not in _LENGTH)
        return RESUMABLE_FIELDS

    @property
    def digest(self) -> str:
        """Hash of all fields that must not change when a run of the recipe resumes."""
        # parse it first, because 19 in a recipe's code is 19.0 in its file
        document = to_plain(parse_recipe(to_plain(self), self.name))
        plain = {
            name: value for name, value in document.items() if name not in self.resumable_fields
        }
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """Return a copy of the recipe, changed by the arguments of `--set`, in order.

    Each assignment has the form "field=value". Raises UserError for an unknown field or
    an invalid value.
    """
    for assignment in assignments:
        recipe = with_override(recipe, assignment)
    return recipe


def differences(one: Recipe, other: Recipe) -> list[str]:
    """Return the fields in which two recipes differ, as texts "field: one -> other"."""
    first, second = to_plain(one), to_plain(other)
    # fields that may change when a run is resumed are ignored
    names = [
        name for name in first if name not in one.resumable_fields and first[name] != second[name]
    ]
    return [f"{name}: {first[name]} -> {second[name]}" for name in names]


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe to a JSON file, atomically; `load_recipe` reads such files."""
    write_atomic(path, json.dumps(to_plain(recipe), indent=1).encode() + b"\n")


def load_recipe(path: Path) -> Recipe:
    """Return the recipe in a JSON file that `save_recipe` wrote.

    Raises UserError if the file is missing or invalid.
    """
    try:
        document = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"no recipe file {path}: give the path of a recipe.json") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore it") from None
    return parse_recipe(document, str(path))


def parse_recipe(document: object, where: str) -> Recipe:
    """Convert a parsed JSON value to a recipe.

    `where`, for instance a file's path, begins each error message. Raises UserError if
    the value is not a valid recipe.
    """
    recipe = from_plain(Recipe, document, where)
    assert isinstance(recipe, Recipe)
    return dataclasses.replace(recipe)
