"""The training loop: start or resume a run, take its steps, save, validate and stop."""

from __future__ import annotations

import hashlib
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from colortrain.data.loader import Loader, LoaderConfig, ab_histogram
from colortrain.data.tar_stream import StreamLoader, make_loader
from colortrain.distributed.compute import ComputeConfig
from colortrain.distributed.rank_failures import heartbeat
from colortrain.distributed.resume import choose_checkpoint
from colortrain.distributed.trainable import TrainableNetwork, rebuild_ddp_buckets
from colortrain.distributed.wrap import make_networks
from colortrain.lab import Batch
from colortrain.losses.reconstruction import LossContext, LossFunction
from colortrain.metrics.evaluate import ScoringStoppedError
from colortrain.models.batch_invariant import restore_finite_bn_stats
from colortrain.recipe import Recipe, save_recipe
from colortrain.runs.checkpoint import load_state, load_tensors
from colortrain.runs.folder import TrainingData, check_checkpoint, check_run_folder
from colortrain.runs.layout import recipe_file
from colortrain.runs.retention import check_steering, remove_temporaries, resumed_best, save_best
from colortrain.runs.run_lock import RunLock
from colortrain.training.cadence import Cadence, Overhead
from colortrain.training.checkpoint_writer import CheckpointWriter, TensorFiles
from colortrain.training.finetune import InitialWeights
from colortrain.training.journal import Journal
from colortrain.training.log_lines import progress_fields, start_values
from colortrain.training.networks import build_networks, make_ema
from colortrain.training.plateau import ReduceOnPlateau
from colortrain.training.preemption import SharedStopFlag
from colortrain.training.profiling import AVERAGE, LOGGING, NO_PROFILER, Profiler
from colortrain.training.state import TrainState, update_ema
from colortrain.training.step import train_step
from colortrain.training.train_metrics import WINDOW, TrainMetrics
from colortrain.training.validation import Validation
from shards.progress import ProgressLine
from shards.read.order import ORDER_VERSION


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed that torch's generator gets before one step on one rank."""
    # a resumed run draws the same random numbers as an uninterrupted one
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Trainer:
    """Trains one recipe on one set of shards, in one run folder.

    The constructor raises UserError if the folder belongs to another recipe or is not a
    run folder.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        run: Path,
        accelerator: Accelerator,
        init: InitialWeights | None = None,
        compute: ComputeConfig | None = None,
        overhead: Overhead | None = None,
    ) -> None:
        self.recipe, self.data, self.run, self.accelerator = recipe, data, run, accelerator
        self.compute = compute or ComputeConfig()
        self.compute.apply_to_process(accelerator.device)
        self.dataset_id = data.dataset_id
        self.step = self.images = self.start_step = self.saved_step = 0
        self.total = recipe.total_images(len(data.train))
        check_run_folder(run, recipe)
        check_steering(recipe, data.validation)
        self.loader = self._make_loader()
        self.resume_from = choose_checkpoint(run, accelerator)
        self.init_metadata = init.metadata if init and self.resume_from is None else None
        self.generator, self.critic = self._build_networks(init)
        self.networks = {"generator": self.generator}
        if self.critic is not None:
            self.networks["critic"] = self.critic
        self.ema = make_ema(recipe, self.generator.module)
        self.loss_functions = self._build_losses()
        self.journal = Journal(run, accelerator)
        self.validation = self._make_validation()
        self.plateau = ReduceOnPlateau(recipe.plateau)
        self.state = TrainState(self.networks, self.ema, self.plateau, accelerator)
        self.checkpoint_writer = CheckpointWriter(run, recipe, self.journal)
        self.cadence = Cadence(recipe, overhead or Overhead(), accelerator)
        self.metrics = TrainMetrics(
            self.networks, self.loader, accelerator, self.compute.max_skipped
        )
        self.profiler: Profiler = NO_PROFILER
        self.stop_flag = SharedStopFlag(accelerator.device)
        self.warnings: tuple[str, ...] = ()  # lines that rank 0 prints when training starts
        self.validation_due = False  # validation of the current step was interrupted
        self.run_lock = RunLock(run)  # held by rank 0 during `train`

    def _make_loader(self) -> Loader | StreamLoader:
        recipe, data, accelerator = self.recipe, self.data, self.accelerator
        return make_loader(
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

    def _build_networks(
        self, init: InitialWeights | None
    ) -> tuple[TrainableNetwork, TrainableNetwork | None]:
        """Build the generator and the critic, and wrap them for DDP or DeepSpeed."""
        built = build_networks(self.recipe, init, resumes=self.resume_from is not None)
        steps = self.recipe.total_steps(len(self.data.train))
        return make_networks(self.recipe, *built, self.accelerator, self.compute, steps=steps)

    def _build_losses(self) -> list[LossFunction]:
        """Build the reconstruction losses, one function per term of the objective."""
        context = LossContext(
            self.accelerator.device,
            self.recipe.codec,
            lambda: ab_histogram(self.data.train),
            self.generator.module,
            self.accelerator.autocast,
        )
        return [term.build(context) for term in self.recipe.objective.reconstruction]

    def _make_validation(self) -> Validation | None:
        split = self.data.validation
        if split is None:
            return None
        return Validation(self.recipe, split, self.accelerator, self.journal)

    def describe_start(self) -> str:
        """Return in one line where the run starts, and when it validates and saves."""
        steps = self.recipe.total_steps(len(self.data.train))
        start = f"resuming from step {self.step:,}"
        if self.resume_from is None:
            start = "no checkpoint yet, starting at step 0"
        cadence = self.cadence.describe(self.validation is not None)
        options = "".join(f", {name}" for name in self.generator.compute.named())
        return f"{self.run}: {start} of {steps:,}; {cadence}{options}"

    @property
    def epoch(self) -> float:
        """The current epoch: images seen / size of the dataset."""
        return self.images / len(self.data.train)

    @property
    def schedule_epoch(self) -> float:
        """The epoch at which the recipe's schedules are evaluated."""
        # with a `span`, the schedules are stretched over the whole run
        return self.recipe.span * self.images / self.total if self.recipe.span else self.epoch

    def train(self) -> bool:
        """Train until the recipe's length is reached; return whether it was reached.

        The run resumes from the newest checkpoint in its folder. Inside
        `preemption.handling_signals()`, a signal stops it earlier. Raises UserError if
        the ranks' networks differ, or if too many consecutive updates were skipped.
        """
        with self.run_lock, self.checkpoint_writer:
            self._start()
            try:
                self._repeat_validation()
                finished = self._loop()
            except ScoringStoppedError:
                finished = False
            self._finish("end" if finished else "stop")
        return finished

    def _loop(self) -> bool:
        label = "training" if self.step == 0 else f"training (from step {self.step})"
        shown = self.accelerator.is_main_process
        progress = ProgressLine(label, self.total, "images", start=self.images, shown=shown)
        with progress, closing(self.loader.batches(self.images)) as batches:
            while self.images < self.total:
                if self._must_stop():
                    self._save_early()
                    return False
                batch = next(batches)
                if self.step == self.start_step and self.accelerator.num_processes > 1:
                    rebuild_ddp_buckets(self.generator, batch.L)
                    if self.critic is not None:
                        rebuild_ddp_buckets(self.critic, batch.L, batch.colour)
                self.take_step(batch)
                self._run_due_tasks(progress)
        return True

    def _must_stop(self) -> bool:
        """Return whether a stop was requested; show that this process is alive.

        All ranks must call it between steps, and between chunks of a validation.
        """
        heartbeat()
        self.checkpoint_writer.poll()
        return self.stop_flag.is_set()

    def _start(self) -> None:
        """Lock the run folder, load the checkpoint, if any, and open the journal."""
        if self.accelerator.is_main_process:
            self.run_lock.acquire()
            remove_temporaries(self.run)
        if self.resume_from is not None:
            self.load(self.resume_from)
        self.start_step = self.step
        if self.accelerator.is_main_process:
            print(self.describe_start(), *self.warnings, sep="\n", file=sys.stderr, flush=True)
            save_recipe(self.recipe, recipe_file(self.run))
            save_best(self.run, self.checkpoint_writer.best)
        self.journal.start(self.recipe, self.step, validation_due=self.validation_due)
        values = start_values(
            self.images,
            self.dataset_id,
            self.accelerator,
            self.init_metadata,
            self.generator.compute,
        )
        self.journal.write("start", self.step, {**values, "overhead": self.cadence.limits()})
        if self.init_metadata and self.resume_from is None:
            self.save()  # from now on the run that the weights came from may be changed or deleted
        self.metrics.start(self.images)

    def take_step(self, batch: Batch) -> None:
        """Take one training step; `batch` is this rank's slice of the global batch."""
        torch.manual_seed(step_seed(self.recipe.seed, self.step, self.accelerator.process_index))
        for network in self.networks.values():
            network.scale_lr(self._lr_factor())
        with restore_finite_bn_stats(*(network.module for network in self.networks.values())):
            losses = train_step(
                self.generator,
                self.critic,
                self.recipe,
                self.loss_functions,
                batch,
                self.step,
                self.schedule_epoch,
                self.profiler,
            )
        self.step += 1
        self.images = self.step * self.recipe.batch_size
        if self.ema is not None:
            decay = self.recipe.ema.decay(self.recipe.batch_size, self.total)
            with self.profiler.region(AVERAGE):
                update_ema(self.ema, self.generator.module, decay)
        with self.profiler.region(LOGGING):
            self.metrics.update(losses)

    def _lr_factor(self) -> float:
        return self.recipe.learning_rate.at(self.schedule_epoch) * self.plateau.factor

    def _run_due_tasks(self, progress: ProgressLine) -> None:
        """Log, validate and save, each only if it is due at the current step."""
        last = self.images >= self.total
        if self.step % self.recipe.log_every == 0 or last:
            progress.advance_to(min(self.images, self.total), self._log())
        due = self.cadence.due(self.step, last)
        if due.scheduled:  # also if it is skipped, so that the weights are the same
            self._equalize_ranks()
        is_best = due.validate and self._validate()
        if due.save or is_best:
            self.save()

    def _log(self) -> dict[str, str]:
        """Write training metrics to the journal; return the progress bar's texts."""
        with self.profiler.region(LOGGING):
            readings = self.metrics.compute(self.images, f"{self.run}: step {self.step}")
        if not readings:
            return {}
        if self.data.max_damaged:
            readings["substituted"] = self.metrics.num_damaged()
        lr = self.recipe.generator_adam.lr * self._lr_factor()
        values = {"images": self.images, "epoch": self.epoch, "lr": lr, **readings}
        self.journal.write("train", self.step, values)
        return progress_fields(values)

    def _log_skipped(self, task: str) -> None:
        """Write to the journal how often a task was skipped since it last ran."""
        if times := self.cadence.tasks[task].skipped:
            self.journal.write("skipped", self.step, {"task": task, "times": times})

    def _warn(self, text: str) -> None:
        print(f"rank {self.accelerator.process_index}: {text}", file=sys.stderr, flush=True)

    def _validate(self) -> bool:
        """Score the validation split; return whether this step is the best so far.

        Raises ScoringStoppedError after a stop request; the state is then saved.
        """
        if self.validation is None:
            return False
        self._log_skipped("validation")
        generator = self.ema if self.ema is not None else self.generator.module
        try:
            with self.cadence.validation.timed():
                scores = self.validation.score(generator, self._must_stop)
                values = {"images": self.images, "epoch": self.epoch, **scores}
                self.journal.write("validation", self.step, values)
                if self.cadence.validation.is_due(self.step):
                    # not for the additional one at the end: longer runs do not have it
                    self.plateau.step(scores["metrics"]["l1"]["generated"])
                self.validation.log_samples(generator, self.step)
        except ScoringStoppedError:
            self._save_before_validation()
            raise
        self.metrics.exclude(self.cadence.validation.seconds)
        return self.checkpoint_writer.update_best(self.step, scores["metrics"])

    def save(self, more: TensorFiles | None = None) -> None:
        """Save a checkpoint of the current step; all ranks must call it.

        more: additional files, file stem -> tensor name -> tensor. Raises UserError if
        the ranks' networks differ.
        """
        self._log_skipped("saving")
        started = time.monotonic()
        with self.cadence.saving.timed():
            self.state.check_ranks_agree(self.step)
            files = {**self.state.tensor_files(), **(more or {})}
            if window := self.metrics.window():
                files[WINDOW] = window
            if self.accelerator.is_main_process:
                self.run_lock.check()
                self.checkpoint_writer.save(self.step, files, self._metadata(), started)
        self.saved_step = self.step

    def _save_early(self) -> None:
        """Save a checkpoint as the run stops, unless this step has one."""
        if self.step not in (self.start_step, self.saved_step):
            # Scheduled checkpoints average the BatchNorm statistics over ranks. Here
            # the run resumes with each rank's own, so that stopping does not change its
            # result.
            rank_buffers = self.state.bn_stats_files()
            self._equalize_ranks()
            self.save(rank_buffers)

    def _equalize_ranks(self) -> None:
        """Let all ranks evaluate and save the same networks."""
        self.state.average_bn_stats()
        if self.compute.resync and (difference := self.state.resync()):
            self.journal.write("resync", self.step, {"difference": difference})

    def _save_before_validation(self) -> None:
        """Save a checkpoint of a step whose validation has been interrupted."""
        if self.step != self.start_step:  # else the run has just resumed from it
            self.validation_due = True
            self.save()

    def _repeat_validation(self) -> None:
        """Validate if the run resumes from `_save_before_validation`."""
        due, self.validation_due = self.validation_due, False
        if due:
            self._validate()
            self.save()  # replaces that checkpoint

    def _metadata(self) -> dict[str, Any]:
        """Return the contents of a checkpoint's trainer.json, except the step."""
        return {
            "images": self.images,
            "dataset_id": self.dataset_id,
            "recipe": self.recipe.digest,
            "order": ORDER_VERSION,
            "torch": torch.__version__,
            "init_from": self.init_metadata,
            **({"validation_due": True} if self.validation_due else {}),
            **self.state.json_state(),
        }

    def load(self, folder: Path) -> None:
        """Restore the run's state from the checkpoint in `folder`.

        Raises UserError if the checkpoint belongs to another recipe, dataset or sample
        order.
        """
        state = load_state(folder)
        check_checkpoint(folder, state, self.recipe, self.dataset_id)
        self.state.load(folder, state)
        if (folder / f"{WINDOW}.safetensors").is_file():
            self.metrics.load_window(load_tensors(folder, WINDOW))
        self.step, self.images = state["step"], state["images"]
        self.init_metadata = state.get("init_from")
        self.validation_due = state.get("validation_due", False)
        self.checkpoint_writer.best = resumed_best(
            self.run, self.recipe.keep_best, state.get("best")
        )

    def _finish(self, kind: str) -> None:
        """Wait until the last checkpoint is on disk; write the journal's last line."""
        self.checkpoint_writer.wait()
        self.accelerator.wait_for_everyone()
        self._log_skipped("validation")
        # "end" for a finished run, "stop" for one that a signal has stopped
        self.journal.write(kind, self.step, {"images": self.images})
        self.journal.close()
