"""The training loop: where a run starts or goes on, what it does when, and how it ends."""

from __future__ import annotations

import hashlib
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from colortrain.data.loader import LoaderConfig, ab_histogram
from colortrain.data.tar_stream import make_loader
from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.rank_failures import heartbeat
from colortrain.distributed.trainable import settle_buckets
from colortrain.distributed.wrap import make_networks
from colortrain.lab import Batch
from colortrain.losses.reconstruction import Resources
from colortrain.models.batch_invariant import restore_finite_bn_stats
from colortrain.models.pretrained import Pretrainable
from colortrain.recipe import Recipe, save_recipe
from colortrain.runs.checkpoint import latest_checkpoint, load_state
from colortrain.runs.folder import TrainingData, check_checkpoint, check_run_folder, lock
from colortrain.runs.layout import recipe_file
from colortrain.runs.retention import better, check_keep_best, contender, resumed_best, save_best
from colortrain.training.finetune import InitialWeights
from colortrain.training.journal import Journal
from colortrain.training.meter import Meter
from colortrain.training.plateau import PlateauWatch
from colortrain.training.preemption import StopVote
from colortrain.training.saver import Parts, Saver
from colortrain.training.state import State, agree_on_start, move_average
from colortrain.training.step import train_step
from colortrain.training.validation import Validation
from shards.progress import ProgressLine
from shards.read.order import ORDER_VERSION


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of all random draws of one step on one rank: counter-based, so a resumed run draws the same."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Trainer:
    """One run of a recipe on one shard set, in one folder. `train()` goes on wherever the folder says it stopped."""

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        run: Path,
        accelerator: Accelerator,
        init: InitialWeights | None = None,
        compute: ComputeConfig | None = None,
    ) -> None:
        self.compute = compute or ComputeConfig()
        self.recipe, self.data, self.run, self.accelerator = recipe, data, run, accelerator
        self.dataset_id = data.train.dataset_id
        check_run_folder(run, recipe)
        check_keep_best(recipe, data.validation is not None)
        self.loader = make_loader(
            data.train,
            recipe.codec,
            LoaderConfig(
                batch_size=recipe.batch_size,
                seed=recipe.seed,
                flip=recipe.flip,
                crop=recipe.crop,
                rank=accelerator.process_index,
                world=accelerator.num_processes,
                device=accelerator.device,
                workers=data.workers,
                max_damaged=data.max_damaged,
            ),
            on_warning=self._warn,
        )
        torch.manual_seed(recipe.seed)
        generator, critic = recipe.generator.build(), recipe.critic.build()
        self.average = recipe.generator.build() if recipe.ema else None
        self.begins_at = latest_checkpoint(run)
        self.begun_from = init.facts() if init and self.begins_at is None else None
        if self.begins_at is None and init:
            init.load(generator, critic)
        elif self.begins_at is None and isinstance(recipe.generator, Pretrainable):
            recipe.generator.pretrain(
                generator
            )  # before anything is written: the weights may not be at hand
        self.generator, self.critic = make_networks(
            recipe, generator, critic, accelerator, self.compute
        )
        if self.average is not None:
            self.average.load_state_dict(generator.state_dict())
            self.average.to(accelerator.device).eval().requires_grad_(False)
        resources = Resources(
            accelerator.device,
            recipe.codec,
            lambda: ab_histogram(data.train),
            self.generator.module,
        )
        self.measures = [term.build(resources) for term in recipe.objective.reconstruction]
        self.journal = Journal(run, accelerator)
        split = data.validation
        self.validation = (
            Validation(recipe, split, accelerator, self.journal) if split is not None else None
        )
        self.plateau = PlateauWatch(recipe.plateau)
        self.state = State(self.generator, self.critic, self.average, self.plateau, accelerator)
        self.saver = Saver(run, recipe, self.journal)
        networks = {"generator": self.generator, "critic": self.critic}
        self.meter = Meter(networks, self.loader, accelerator, self.compute.max_skipped)
        self.held = ExitStack()  # the lock on the run folder
        self.step = self.images = self.started_at = 0
        self.total = recipe.total_images(len(data.train))

    @property
    def epoch(self) -> float:
        """Images seen, in dataset sizes."""
        return self.images / len(self.data.train)

    @property
    def clock(self) -> float:
        """What schedules go by: the epoch, or the share of the run that is over, of a recipe with a span."""
        return self.recipe.span * self.images / self.total if self.recipe.span else self.epoch

    def train(self) -> bool:
        """Train to the recipe's length, saving on the way; evaluate and save at the end.

        False if it saved and left before that: inside `preemption.handling_signals()`, because of a signal.
        """
        with self.held, self.saver:
            self._begin()
            finished = self._loop()
            self._end("end" if finished else "stop")
        return finished

    def _loop(self) -> bool:
        label = "training" if self.step == 0 else f"training (from step {self.step})"
        shown = self.accelerator.is_main_process
        progress = ProgressLine(label, self.total, "images", start=self.images, shown=shown)
        vote = StopVote(self.accelerator.device)
        with progress, closing(self.loader.batches(self.images)) as batches:
            while self.images < self.total:
                if vote.carried():
                    self._save_early()
                    return False
                heartbeat()
                self.saver.poll()
                batch = next(batches)
                if self.step == self.started_at and self.accelerator.num_processes > 1:
                    settle_buckets(self.generator, batch.L)
                    settle_buckets(self.critic, batch.L, batch.colour)
                self.take_step(batch)
                self._do_what_is_due(progress)
        return True

    def _begin(self) -> None:
        if self.begins_at is not None:
            self.load(self.begins_at)
        self.started_at = self.step
        agree_on_start(self.step, self.run)
        if self.accelerator.is_main_process:
            self.held.enter_context(lock(self.run))
            save_recipe(self.recipe, recipe_file(self.run))
            save_best(self.run, self.saver.best)
        self.journal.begin(self.recipe, self.step)
        world, device = self.accelerator.num_processes, str(self.accelerator.device)
        facts = {
            "images": self.images,
            "dataset_id": self.dataset_id,
            "world": world,
            "device": device,
        }
        more = {"init_from": self.begun_from} if self.begun_from else {}
        self.journal.write(
            "start",
            self.step,
            {**facts, "mixed_precision": self.accelerator.mixed_precision, **more},
        )
        if self.begun_from and self.begins_at is None:
            self.save()  # that other run may go on or go away: from here on this one needs it no more
        self.meter.begin(self.images)

    def take_step(self, batch: Batch) -> None:
        """One step on one global batch, of which `batch` is this rank's share."""
        torch.manual_seed(step_seed(self.recipe.seed, self.step, self.accelerator.process_index))
        self.generator.set_rate(self._rate_factor())
        self.critic.set_rate(self._rate_factor())
        with restore_finite_bn_stats(self.generator.module, self.critic.module):
            losses = train_step(
                self.generator,
                self.critic,
                self.recipe,
                self.measures,
                batch,
                self.step,
                self.clock,
            )
        self.step += 1
        self.images = self.step * self.recipe.batch_size
        if self.average is not None:
            decay = self.recipe.ema.decay(self.recipe.batch_size, self.total)
            move_average(self.average, self.generator.module, decay)
        self.meter.add(losses)

    def _rate_factor(self) -> float:
        return self.recipe.learning_rate.at(self.clock) * self.plateau.factor

    def _do_what_is_due(self, progress: ProgressLine) -> None:
        recipe, last = self.recipe, self.images >= self.total
        if self.step % recipe.log_every == 0 or last:
            progress.advance_to(min(self.images, self.total), self._log())
        validate, save = (
            self.step % every == 0 or last
            for every in (recipe.evaluate_every, recipe.checkpoint_every)
        )
        if validate or save:
            self.state.agree_on_buffers()
        is_best = validate and self._validate()
        if save or is_best:
            self.save()

    def _log(self) -> dict[str, str]:
        """Write the line of the last few steps down; what of it the progress bar shows."""
        values = self.meter.read(self.images, f"{self.run}: step {self.step}")
        if not values:
            return {}
        if self.data.max_damaged:
            values["substituted"] = self.meter.substituted()
        where = {
            "images": self.images,
            "epoch": self.epoch,
            "lr": self.recipe.generator_adam.lr * self._rate_factor(),
        }
        self.journal.write("train", self.step, {**where, **values})
        losses = values["losses"]
        shown: dict[str, str] = {
            n: f"{losses[n]:.3f}" for n in ("generator", "critic", "l1") if n in losses
        }
        return {**shown, "data wait": f"{values['data_wait']:.1%}"}

    def _warn(self, text: str) -> None:
        print(f"rank {self.accelerator.process_index}: {text}", file=sys.stderr, flush=True)

    def _validate(self) -> bool:
        """Score and draw what the held-out split makes; whether the generator is the best so far by `keep_best`."""
        if self.validation is None:
            return False
        began = time.monotonic()
        generator = self.average if self.average is not None else self.generator.module
        scores = self.validation.score(generator)
        self.journal.write(
            "validation", self.step, {"images": self.images, "epoch": self.epoch, **scores}
        )
        if (
            self.step % self.recipe.evaluate_every == 0
        ):  # not the one at the end: a longer run would not have had it
            self.plateau.see(scores["metrics"]["l1"]["generated"])
        self.validation.draw(generator, self.step)
        self.meter.pause(time.monotonic() - began)
        return self._is_best(scores["metrics"])

    def _is_best(self, metrics: dict[str, dict[str, float]]) -> bool:
        if not self.recipe.keep_best:
            return False
        new = contender(self.recipe.keep_best, self.step, metrics)
        if not better(new, self.saver.best):
            return False
        self.saver.best = new
        return True

    def save(self, more: Parts | None = None) -> None:
        """All ranks arrive and prove that they hold the same; rank 0 copies it, and its thread writes."""
        began = time.monotonic()
        self.state.check_ranks_agree(self.step)
        parts = {**self.state.parts(), **(more or {})}
        if self.accelerator.is_main_process:
            self.saver.save(self.step, parts, self._facts(), began)

    def _save_early(self) -> None:
        """Save where the recipe asks for no checkpoint, so that going on from it changes nothing."""
        if self.step != self.started_at and self.step % self.recipe.checkpoint_every:
            own = self.state.own_buffers()
            self.state.agree_on_buffers()
            self.save(own)

    def _facts(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "dataset_id": self.dataset_id,
            "recipe": self.recipe.digest,
            "order": ORDER_VERSION,
            "torch": torch.__version__,
            "init_from": self.begun_from,
            **self.state.plain(),
        }

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint; raises `UserError` if it is of another run."""
        state = load_state(folder)
        check_checkpoint(folder, state, self.recipe, self.dataset_id)
        self.state.load(folder, state)
        self.step, self.images, self.begun_from = (
            state["step"],
            state["images"],
            state.get("init_from"),
        )
        self.saver.best = resumed_best(self.run, self.recipe.keep_best, state.get("best"))

    def _end(self, how: str) -> None:
        """Leave when all is on disk: no rank ends before the last checkpoint counts."""
        self.saver.wait()
        self.accelerator.wait_for_everyone()
        self.journal.write(how, self.step, {"images": self.images})
        self.journal.end()
