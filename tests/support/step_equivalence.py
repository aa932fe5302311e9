"""One step of every kind of game, on however many processes take part: what `test_equivalence` compares.

    accelerate launch --config_file launch/accelerate/cpu.yaml -m tests.support.step_equivalence OUT [DTYPE...]

Networks, pictures and draws are the same in every process of every launch; each takes its share of the pictures.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor

from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.setup import make_accelerator
from colortrain.distributed.wrap import make_networks
from colortrain.distributed.zero import zero_stage
from colortrain.lab import Batch, LabCodec, SymmetricCodec
from colortrain.losses.adversarial import BCE, LSGAN, Hinge, Wasserstein
from colortrain.losses.penalty import GradientPenalty
from colortrain.losses.perceptual import Perceptual
from colortrain.losses.rebalanced import RebalancedL1
from colortrain.losses.reconstruction import L1, L2, Resources
from colortrain.models.deep_unet import DeepUNetConfig
from colortrain.models.fully_convolutional import FullyConvolutionalConfig
from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.pix2pix import UNetConfig
from colortrain.models.res_unet import ResUNetConfig
from colortrain.models.square_critic import SquareCriticConfig
from colortrain.recipe import Adam, Objective, Recipe
from colortrain.schedule import constant
from colortrain.training.step import train_step

PICTURES, SIZE = 8, 32
_GP, _R1 = GradientPenalty(target=1.0), GradientPenalty(points="real", target=0.0)
_PLAIN = Recipe(
    name="equivalence",
    size=SIZE,
    batch_size=PICTURES,
    epochs=1,
    seed=3,
    generator=DeepUNetConfig(base_channels=4, levels=2, norm="pixel"),
    critic=SquareCriticConfig(base_channels=4, depth=2, norm="instance"),
    generator_adam=Adam(lr=1e-3),
    critic_adam=Adam(lr=1e-3),
)


def _plays(objective: Objective, **changes: object) -> Recipe:
    return dataclasses.replace(_PLAIN, objective=objective, **changes)  # type: ignore[arg-type]


_SYNCED = {"sync_batch_norm": True, "critic": PatchCriticConfig(base_channels=4, strided_layers=2)}
RECIPES = {
    "bce": _plays(Objective(adversarial=BCE(critic_factor=0.5))),
    "soft_bce": _plays(Objective(adversarial=BCE(0.8, 0.2))),
    "lsgan": _plays(Objective(adversarial=LSGAN(), reconstruction=(L1(), L2()))),
    "hinge": _plays(Objective(adversarial=Hinge())),
    "wasserstein_gp": _plays(Objective(adversarial=Wasserstein(), penalties=(_GP,)), n_critic=5),
    "bce_gp": _plays(Objective(adversarial=BCE(), penalties=(GradientPenalty(wrt="picture"),))),
    "gp_r1": _plays(Objective(adversarial=Wasserstein(), penalties=(_GP, _R1)), n_generator=2),
    "rebalanced_l1": _plays(Objective(reconstruction=(RebalancedL1(mode="smoothed"),))),
    "vgg": _plays(Objective(reconstruction=(Perceptual(weights="random"),))),
    "l1_alone": _plays(Objective(adversarial_weight=constant(0.0))),
    "no_critic": _plays(Objective(adversarial_weight=constant(0.0)), critic=None),
    "clipped": _plays(
        Objective(), generator_adam=Adam(lr=1e-3, clip=0.05), critic_adam=Adam(lr=1e-3, clip=0.01)
    ),
}
MUON = {
    "muon": _plays(
        Objective(), generator_adam=Adam(lr=1e-3, muon=2e-3), critic_adam=Adam(lr=1e-3, muon=1e-3)
    )
}
# networks with BatchNorm: the statistics are those of a microbatch, so the number of those must not change
SYNCED = {
    "unet": _plays(Objective(), generator=UNetConfig(base_channels=4, levels=4), **_SYNCED),
    "res_unet": _plays(Objective(), generator=ResUNetConfig(base_channels=4, levels=2), **_SYNCED),
    "fully_convolutional": _plays(
        Objective(reconstruction=(L2(),)),
        codec=LabCodec(),
        generator=FullyConvolutionalConfig(base_channels=4, levels=3),
        critic=PatchCriticConfig(base_channels=4, strided_layers=2, inputs=4),
        sync_batch_norm=True,
        # its biases before BatchNorm have a gradient of rounding alone, which Adam would blow up to a whole step
        generator_adam=Adam(lr=1e-3, eps=1e-4),
    ),
}
_RESOURCES = Resources(torch.device("cpu"), SymmetricCodec(), lambda: np.zeros((23, 23)))
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def pictures(channels: int, step: int) -> Batch:
    """The global batch of a step."""
    draw = np.random.default_rng(step)
    L, colour = (
        draw.uniform(-1, 1, (PICTURES, 1, SIZE, SIZE)),
        draw.uniform(-0.5, 0.5, (PICTURES, channels, SIZE, SIZE)),
    )
    mix = draw.uniform(0, 1, (PICTURES, 1, 1, 1))
    return Batch(
        *(torch.from_numpy(array).to(torch.get_default_dtype()) for array in (L, colour, mix))
    )


def share(batch: Batch, accelerator: Accelerator) -> Batch:
    """The slice of a global batch that this process sees, on its device."""
    rank, world = accelerator.process_index, accelerator.num_processes
    mine = slice(rank * PICTURES // world, (rank + 1) * PICTURES // world)
    return Batch(
        *(tensor[mine].to(accelerator.device) for tensor in (batch.L, batch.colour, batch.mix))
    )


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def outcome(
    recipe: Recipe, dtype: torch.dtype, accelerator: Accelerator, compute: ComputeConfig
) -> dict[str, Tensor]:
    """Everything after both networks have had their turn: parameters, buffers, and the losses as logged."""
    steps = max(recipe.n_critic, recipe.n_generator)
    with _default(dtype):
        torch.manual_seed(0)
        networks = make_networks(recipe, *recipe.build_networks(), accelerator, compute)
        histogram = np.random.default_rng(0).dirichlet(np.ones(23 * 23)).reshape(23, 23)
        resources = Resources(accelerator.device, SymmetricCodec(), lambda: histogram)
        measures = [term.build(resources) for term in recipe.objective.reconstruction]
        found: dict[str, Tensor] = {}
        for step in range(steps):
            batch = share(pictures(recipe.codec.channels, step), accelerator)
            losses = train_step(*networks, recipe, measures, batch, step, epoch=0)
            found |= {
                f"step {step} {name}": accelerator.reduce(value, "mean")
                for name, value in losses.items()
            }
    for network in filter(None, networks):
        found |= {
            f"{type(network.module).__name__}.{k}": v.detach()
            for k, v in network.module.state_dict().items()
        }
    return found


def after_one_rank_failed(accelerator: Accelerator) -> dict[str, Tensor]:
    """What each rank holds and counts after three steps; in the second the last rank's pictures are not finite."""
    recipe = RECIPES["bce"]
    torch.manual_seed(0)
    pair = make_networks(recipe, *recipe.build_networks(), accelerator, ComputeConfig(accumulate=2))
    networks = [network for network in pair if network is not None]
    for step in range(3):
        batch = share(pictures(2, step), accelerator)
        if step == 1 and accelerator.is_last_process:
            batch.colour[0, 0, 0, 0] = torch.inf
        train_step(*pair, recipe, [L1().build(_RESOURCES)], _single(batch), step, epoch=0)
    values = [
        parameter.detach().flatten()
        for network in networks
        for parameter in network.module.parameters()
    ]
    counts = [torch.tensor([float(n) for n in network.skips.read()]) for network in networks]
    return {"parameters": torch.cat(values), "skipped": torch.cat(counts)}


def _single(batch: Batch) -> Batch:
    return Batch(batch.L.float(), batch.colour.float(), batch.mix.float())


def main() -> None:
    """Every recipe in the precisions asked for, or all, with one microbatch a process and with two."""
    out, asked, accelerator = Path(sys.argv[1]), sys.argv[2:] or list(DTYPES), make_accelerator()
    for name, recipe, dtype, accumulate in cases():
        if dtype not in asked:
            continue
        found = outcome(recipe, DTYPES[dtype], accelerator, ComputeConfig(accumulate=accumulate))
        if accelerator.is_main_process:
            save_file(
                {key: tensor.contiguous() for key, tensor in found.items()},
                out / f"{name}-{dtype}-{accumulate}",
            )
    save_file(after_one_rank_failed(accelerator), out / f"failed-{accelerator.process_index}")


def cases() -> list[tuple[str, Recipe, str, int]]:
    """Name, recipe, precision and microbatches of every row of the matrix; Muon's where weights stay whole."""
    games = RECIPES if zero_stage() else {**RECIPES, **MUON}
    exact = [(n, r, dtype, k) for n, r in games.items() for dtype in DTYPES for k in (1, 2)]
    return exact + [(n, r, dtype, 1) for n, r in SYNCED.items() for dtype in DTYPES]


if __name__ == "__main__":
    main()
    torch.distributed.destroy_process_group()
