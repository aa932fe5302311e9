"""Validation during training: scores of the held-out split, and a grid of samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from colortrain.lab import stored_to_lab
from colortrain.metrics.evaluate import ScoringConfig, SplitScorer, generate
from colortrain.metrics.registry import Scores
from colortrain.recipe import Recipe
from colortrain.training.journal import Journal
from colortrain.visualize import sample_grid
from shards.read.dataset import Split

_NUM_SAMPLES = 8  # images in a sample grid


class Validation:
    """Scores a generator on the validation split and draws a grid of sample images."""

    def __init__(
        self, recipe: Recipe, split: Split, accelerator: Accelerator, journal: Journal
    ) -> None:
        self.recipe, self.split = recipe, split
        self.accelerator, self.journal = accelerator, journal
        self.scorer = SplitScorer(
            recipe.codec,
            split,
            accelerator.device,
            # the core metrics are fast enough for use in training
            ScoringConfig(dropout=recipe.test_dropout, metrics="core"),
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        )

    def score(
        self, generator: nn.Module, should_stop: Callable[[], bool] = lambda: False
    ) -> Scores:
        """Return the generator's scores on the whole split, the same on every rank.

        All ranks must call it. Raises ScoringStoppedError as soon as `should_stop`
        returns true, which it must do on all ranks in the same call.
        """
        return self.scorer.score(generator, should_stop=should_stop)

    def log_samples(self, generator: nn.Module, step: int) -> None:
        """Draw a grid of sample images (grayscale, generated, original) and log it."""
        if not self.accelerator.is_main_process:
            return
        count = min(_NUM_SAMPLES, len(self.split))
        indices = np.linspace(0, len(self.split) - 1, count).round().astype(int)
        lab = stored_to_lab(torch.from_numpy(self.split.read(indices))).to(self.accelerator.device)
        generated = generate(generator, self.recipe.codec, lab, dropout=self.recipe.test_dropout)
        self.journal.log_image("samples", step, sample_grid(lab, generated))
