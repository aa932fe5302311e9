"""Steps of every kind of objective, on any number of processes, to be compared.

    accelerate launch --config_file launch/accelerate/cpu.yaml \\
        -m tests.support.step_equivalence OUT [DTYPE...]

Networks, images and random draws are the same in every process of every launch; each
process takes its local batch of the images.
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
from colortrain.losses.reconstruction import L1, L2, LossContext
from colortrain.models.deep_unet import DeepUNetConfig
from colortrain.models.fully_convolutional import FullyConvolutionalConfig
from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.pix2pix import UNetConfig
from colortrain.models.res_unet import ResUNetConfig
from colortrain.models.square_critic import SquareCriticConfig
from colortrain.recipe import Adam, Objective, Recipe
from colortrain.schedule import constant
from colortrain.training.step import train_step
from launch.processes import exit_process

NUM_IMAGES, SIZE = 8, 32
_GP, _R1 = GradientPenalty(target=1.0), GradientPenalty(points="real", target=0.0)
_BASE = Recipe(
    name="equivalence",
    size=SIZE,
    batch_size=NUM_IMAGES,
    epochs=1,
    seed=3,
    generator=DeepUNetConfig(base_channels=4, levels=2, norm="pixel"),
    critic=SquareCriticConfig(base_channels=4, depth=2, norm="instance"),
    generator_adam=Adam(lr=1e-3),
    critic_adam=Adam(lr=1e-3),
)


def _variant(objective: Objective, **changes: object) -> Recipe:
    return dataclasses.replace(_BASE, objective=objective, **changes)  # type: ignore[arg-type]


_SYNCED = {"sync_batch_norm": True, "critic": PatchCriticConfig(base_channels=4, strided_layers=2)}
RECIPES = {
    "bce": _variant(Objective(adversarial=BCE(critic_factor=0.5))),
    "soft_bce": _variant(Objective(adversarial=BCE(0.8, 0.2))),
    "lsgan": _variant(Objective(adversarial=LSGAN(), reconstruction=(L1(), L2()))),
    "hinge": _variant(Objective(adversarial=Hinge())),
    "wasserstein_gp": _variant(Objective(adversarial=Wasserstein(), penalties=(_GP,)), n_critic=5),
    "bce_gp": _variant(Objective(adversarial=BCE(), penalties=(GradientPenalty(wrt="picture"),))),
    "one_batch": _variant(
        Objective(adversarial=Wasserstein(), penalties=(_GP,)), n_critic=3, critic_batches="same"
    ),
    "sums": _variant(
        Objective(
            adversarial=Wasserstein(),
            reconstruction=(L1(channels="sum"), RebalancedL1(channels="sum", mode="smoothed")),
            penalties=(GradientPenalty(patches="sum"),),
        )
    ),
    "gp_r1": _variant(Objective(adversarial=Wasserstein(), penalties=(_GP, _R1)), n_generator=2),
    "rebalanced_l1": _variant(Objective(reconstruction=(RebalancedL1(mode="smoothed"),))),
    "vgg": _variant(Objective(reconstruction=(Perceptual(weights="random"),))),
    "l1_alone": _variant(Objective(adversarial_weight=constant(0.0))),
    "no_critic": _variant(Objective(adversarial_weight=constant(0.0)), critic=None),
    "clipped": _variant(
        Objective(), generator_adam=Adam(lr=1e-3, clip=0.05), critic_adam=Adam(lr=1e-3, clip=0.01)
    ),
}
MUON = {
    "muon": _variant(
        Objective(), generator_adam=Adam(lr=1e-3, muon=2e-3), critic_adam=Adam(lr=1e-3, muon=1e-3)
    )
}
# networks with BatchNorm: the statistics are those of a microbatch, so the number of
# microbatches must not change
SYNCED = {
    "unet": _variant(Objective(), generator=UNetConfig(base_channels=4, levels=4), **_SYNCED),
    "res_unet": _variant(
        Objective(), generator=ResUNetConfig(base_channels=4, levels=2), **_SYNCED
    ),
    "fully_convolutional": _variant(
        Objective(reconstruction=(L2(),)),
        codec=LabCodec(),
        generator=FullyConvolutionalConfig(base_channels=4, levels=3),
        critic=PatchCriticConfig(base_channels=4, strided_layers=2, inputs=4),
        sync_batch_norm=True,
        # the gradients of its biases before BatchNorm are rounding errors, which Adam
        # would scale up to a full step
        generator_adam=Adam(lr=1e-3, eps=1e-4),
    ),
}
_RESOURCES = LossContext(torch.device("cpu"), SymmetricCodec(), lambda: np.zeros((23, 23)))
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def make_batch(channels: int, step: int) -> Batch:
    """Return the global batch of a step in torch's default dtype.

    L is (8, 1, 32, 32) in [-1, 1], colour (8, channels, 32, 32) in [-0.5, 0.5].
    """
    draw = np.random.default_rng(step)
    L, colour = (
        draw.uniform(-1, 1, (NUM_IMAGES, 1, SIZE, SIZE)),
        draw.uniform(-0.5, 0.5, (NUM_IMAGES, channels, SIZE, SIZE)),
    )
    mix = draw.uniform(0, 1, (NUM_IMAGES, 1, 1, 1))
    return Batch(
        *(torch.from_numpy(array).to(torch.get_default_dtype()) for array in (L, colour, mix))
    )


def local_batch(batch: Batch, accelerator: Accelerator) -> Batch:
    """Return this process's slice of a global batch, on its device."""
    rank, world = accelerator.process_index, accelerator.num_processes
    local = slice(rank * NUM_IMAGES // world, (rank + 1) * NUM_IMAGES // world)
    return Batch(
        *(tensor[local].to(accelerator.device) for tensor in (batch.L, batch.colour, batch.mix))
    )


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def run_steps(
    recipe: Recipe, dtype: torch.dtype, accelerator: Accelerator, compute: ComputeConfig
) -> dict[str, Tensor]:
    """Return parameters, buffers and logged losses after a cycle of both networks."""
    steps = max(recipe.n_critic, recipe.n_generator)
    with _default(dtype):
        torch.manual_seed(0)
        networks = make_networks(recipe, *recipe.build_networks(), accelerator, compute)
        histogram = np.random.default_rng(0).dirichlet(np.ones(23 * 23)).reshape(23, 23)
        context = LossContext(accelerator.device, SymmetricCodec(), lambda: histogram)
        loss_functions = [term.build(context) for term in recipe.objective.reconstruction]
        result: dict[str, Tensor] = {}
        for step in range(steps):
            batch = local_batch(make_batch(recipe.codec.channels, step), accelerator)
            losses = train_step(*networks, recipe, loss_functions, batch, step, epoch=0)
            result |= {
                f"step {step} {name}": accelerator.reduce(value, "mean")
                for name, value in losses.items()
            }
    for network in filter(None, networks):
        result |= {
            f"{type(network.module).__name__}.{k}": v.detach()
            for k, v in network.module.state_dict().items()
        }
    return result


def run_with_infinite_pixel(accelerator: Accelerator) -> dict[str, Tensor]:
    """Return this rank's parameters and counts of skipped updates after three steps.

    In the second step an image of the last rank is not finite.
    """
    recipe = RECIPES["bce"]
    torch.manual_seed(0)
    pair = make_networks(recipe, *recipe.build_networks(), accelerator, ComputeConfig(accumulate=2))
    networks = [network for network in pair if network is not None]
    for step in range(3):
        batch = local_batch(make_batch(2, step), accelerator)
        if step == 1 and accelerator.is_last_process:
            batch.colour[0, 0, 0, 0] = torch.inf
        train_step(*pair, recipe, [L1().build(_RESOURCES)], _to_float32(batch), step, epoch=0)
    values = [
        parameter.detach().flatten()
        for network in networks
        for parameter in network.module.parameters()
    ]
    counts = [
        torch.tensor([float(n) for n in network.skipped_updates.read()]) for network in networks
    ]
    return {"parameters": torch.cat(values), "skipped": torch.cat(counts)}


def _to_float32(batch: Batch) -> Batch:
    return Batch(batch.L.float(), batch.colour.float(), batch.mix.float())


def main() -> None:
    """Run every case, in the dtypes of the command line or in all."""
    out, dtypes, accelerator = Path(sys.argv[1]), sys.argv[2:] or list(DTYPES), make_accelerator()
    for name, recipe, dtype, accumulate in cases():
        if dtype not in dtypes:
            continue
        result = run_steps(recipe, DTYPES[dtype], accelerator, ComputeConfig(accumulate=accumulate))
        if accelerator.is_main_process:
            save_file(
                {key: tensor.contiguous() for key, tensor in result.items()},
                out / f"{name}-{dtype}-{accumulate}",
            )
    save_file(run_with_infinite_pixel(accelerator), out / f"failed-{accelerator.process_index}")


def cases() -> list[tuple[str, Recipe, str, int]]:
    """Return the name, recipe, dtype and microbatches per process of every case.

    Muon is left out with DeepSpeed, which flattens the weights.
    """
    objectives = RECIPES if zero_stage() else {**RECIPES, **MUON}
    exact = [(n, r, dtype, k) for n, r in objectives.items() for dtype in DTYPES for k in (1, 2)]
    return exact + [(n, r, dtype, 1) for n, r in SYNCED.items() for dtype in DTYPES]


if __name__ == "__main__":
    main()
    torch.distributed.destroy_process_group()
    exit_process(0)  # a normal shutdown of gloo aborts sometimes
