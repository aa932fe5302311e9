"""Scores and a sample grid of the held-out split along a training."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from colortrain.lab import stored_to_lab
from colortrain.metrics.evaluate import ScoringConfig, generate, score_split
from colortrain.metrics.registry import Scores
from colortrain.recipe import Recipe
from colortrain.training.journal import Journal
from colortrain.visualize import sample_grid
from shards.read.dataset import Split

_SAMPLES = 8  # photographs in a sample grid


class Validation:
    """Scores a generator on a split, with all ranks, and shows what it makes of a few of its photographs."""

    def __init__(
        self, recipe: Recipe, split: Split, accelerator: Accelerator, journal: Journal
    ) -> None:
        self.recipe, self.split, self.accelerator, self.journal = (
            recipe,
            split,
            accelerator,
            journal,
        )

    def score(self, generator: nn.Module) -> Scores:
        """The quick metrics of the whole split, the same on every rank; every rank must call it."""
        return score_split(
            generator,
            self.recipe.codec,
            self.split,
            self.accelerator.device,
            ScoringConfig(dropout=self.recipe.test_dropout, metrics="core"),
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )

    def draw(self, generator: nn.Module, step: int) -> None:
        """The sample grid of a step; rank 0 alone draws."""
        if not self.accelerator.is_main_process:
            return
        chosen = (
            np.linspace(0, len(self.split) - 1, min(_SAMPLES, len(self.split))).round().astype(int)
        )
        lab = stored_to_lab(torch.from_numpy(self.split.read(chosen))).to(self.accelerator.device)
        generated = generate(generator, self.recipe.codec, lab, dropout=self.recipe.test_dropout)
        self.journal.picture("samples", step, sample_grid(lab, generated))
