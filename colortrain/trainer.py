"""The training loop: where a run starts or goes on, what it does when, and how it ends."""

from __future__ import annotations

import hashlib
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from colortrain.checkpoint import (
    Tensors,
    adam_tensors,
    keep_newest,
    latest_checkpoint,
    load_adam,
    load_part,
    load_state,
    save_checkpoint,
)
from colortrain.data import Loader, ab_histogram
from colortrain.engine import Engine
from colortrain.evaluation import generate, score_split
from colortrain.journal import Journal
from colortrain.lab import Batch, stored_to_lab
from colortrain.losses.reconstruction import Resources
from colortrain.models.pretrained import Pretrainable
from colortrain.network import settle
from colortrain.pictures import sample_grid
from colortrain.plateau import PlateauWatch
from colortrain.preemption import StopVote, buffers_of_ranks, take_back_buffers
from colortrain.recipe import Recipe, save_recipe
from colortrain.run import Data, check_run_folder, lock
from colortrain.step import Losses, make_networks, train_step
from shards.errors import UserError
from shards.order import ORDER_VERSION
from shards.progress import ProgressLine
from shards.reader import Split

_SAMPLES = 8  # photographs in a sample grid


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of all random draws of one step on one rank: counter-based, so a resumed run draws the same."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Trainer:
    """One run of a recipe on one shard set, in one folder. `train()` goes on wherever the folder says it stopped."""

    def __init__(
        self, recipe: Recipe, data: Data, run: Path, accelerator: Accelerator, engine: Engine | None = None
    ) -> None:
        self.engine = engine or Engine()
        self.recipe, self.data, self.run, self.accelerator = recipe, data, run, accelerator
        self.dataset_id = data.train.dataset_id
        check_run_folder(run, recipe)
        self.loader = Loader(
            data.train, recipe.codec, batch_size=recipe.batch_size, seed=recipe.seed,
            flip=recipe.flip, crop=recipe.crop,
            rank=accelerator.process_index, world=accelerator.num_processes, device=accelerator.device,
            workers=data.workers, max_damaged=data.max_damaged, tell=self._tell,
        )  # fmt: skip
        torch.manual_seed(recipe.seed)
        generator, critic = recipe.generator.build(), recipe.critic.build()
        self.average = recipe.generator.build() if recipe.ema.half_life else None
        self.begins_at = latest_checkpoint(run)
        if self.begins_at is None and isinstance(recipe.generator, Pretrainable):
            recipe.generator.pretrain(generator)  # before anything is written: the weights may not be at hand
        self.generator, self.critic = make_networks(recipe, generator, critic, accelerator, self.engine)
        if self.average is not None:
            self.average.load_state_dict(generator.state_dict())
            self.average.to(accelerator.device).eval().requires_grad_(False)
        resources = Resources(accelerator.device, recipe.codec, lambda: ab_histogram(data.train))
        self.measures = [term.build(resources) for term in recipe.objective.reconstruction]
        self.journal = Journal(run, accelerator)
        self.plateau = PlateauWatch(recipe.plateau)
        self.held = ExitStack()  # the lock on the run folder
        self.step = self.images = self.started_at = 0
        self.total = recipe.total_images(len(data.train))
        self.recent: dict[str, list[Tensor]] = defaultdict(list)
        self.since = (time.monotonic(), 0.0, 0)  # of the last log line: clock, seconds waited, images

    @property
    def epoch(self) -> float:
        """Images seen, in dataset sizes."""
        return self.images / len(self.data.train)

    def train(self) -> bool:
        """Train to the recipe's length, saving on the way; evaluate and save at the end.

        False if it saved and left before that: inside `preemption.listening()`, because of a signal.
        """
        self._begin()
        label = "training" if self.step == 0 else f"training (from step {self.step})"
        shown = self.accelerator.is_main_process
        progress = ProgressLine(label, self.total, "images", start=self.images, shown=shown)
        vote = StopVote(self.accelerator.device)
        with progress, closing(self.loader.batches(self.images)) as batches:
            while self.images < self.total:
                if vote.carried():
                    self._leave_early()
                    return False
                batch = next(batches)
                if self.step == self.started_at and self.accelerator.num_processes > 1:
                    settle(self.generator, batch.L)
                    settle(self.critic, batch.L, batch.colour)
                self._take_step(batch)
                self._do_what_is_due(progress)
        self._finish()
        return True

    def _begin(self) -> None:
        if self.begins_at is not None:
            self._load(self.begins_at)
        self.started_at = self.step
        self._agree_on_start()
        if self.accelerator.is_main_process:
            self.held.enter_context(lock(self.run))
        if self.accelerator.is_main_process:
            save_recipe(self.recipe, self.run / "recipe.json")
        self.journal.begin(self.recipe, self.step)
        world, device = self.accelerator.num_processes, str(self.accelerator.device)
        facts = {"images": self.images, "dataset_id": self.dataset_id, "world": world, "device": device}
        self.journal.write("start", self.step, {**facts, "mixed_precision": self.accelerator.mixed_precision})
        self.since = (time.monotonic(), self.loader.waited, self.images)

    def _agree_on_start(self) -> None:
        """Raise `UserError` if ranks would begin at different steps: a run folder that is not shared, say."""
        steps = gather_object([self.step])
        if len(set(steps)) > 1:
            raise UserError(
                f"{self.run}: processes found different checkpoints, of steps {sorted(set(steps))}; --run must be a "
                "folder that all machines share"
            )

    def _take_step(self, batch: Batch) -> None:
        torch.manual_seed(step_seed(self.recipe.seed, self.step, self.accelerator.process_index))
        self.generator.set_rate(self._rate_factor())
        self.critic.set_rate(self._rate_factor())
        losses = train_step(self.generator, self.critic, self.recipe, self.measures, batch, self.step, self.epoch)
        self.step += 1
        self.images = self.step * self.recipe.batch_size
        self._average(self.recipe.batch_size)
        self._remember(losses)

    def _rate_factor(self) -> float:
        return self.recipe.learning_rate.at(self.epoch) * self.plateau.factor

    @torch.no_grad()
    def _average(self, images: int) -> None:
        """Move the average towards the generator; outside autograd, or every step would hang on to the one before."""
        if self.average is None:
            return
        keep = self.recipe.ema.decay(images)
        module = self.generator.module
        torch._foreach_lerp_(list(self.average.parameters()), list(module.parameters()), 1 - keep)
        for mine, its in zip(self.average.buffers(), module.buffers(), strict=True):
            mine.copy_(its)

    def _remember(self, losses: Losses) -> None:
        for name, value in losses.items():
            self.recent[name].append(value)

    def _do_what_is_due(self, progress: ProgressLine) -> None:
        recipe, last = self.recipe, self.images >= self.total
        if self.step % recipe.log_every == 0 or last:
            progress.advance_to(min(self.images, self.total), self._log())
        validate, save = (self.step % every == 0 or last for every in (recipe.evaluate_every, recipe.checkpoint_every))
        if validate or save:
            self._agree_on_buffers()
        if validate:
            self._validate()
        if save:
            self._save()

    def _agree_on_buffers(self) -> None:
        """BatchNorm's running statistics become their mean over ranks: all ranks score, and save, the same network."""
        if self.accelerator.num_processes == 1:
            return
        buffers = [buffer for module in self._modules().values() for buffer in module.buffers()]
        for buffer in (buffer for buffer in buffers if buffer.is_floating_point()):
            buffer.copy_(self.accelerator.reduce(buffer, reduction="mean"))

    def _log(self) -> dict[str, str]:
        """Mean losses since the last line, over all ranks: the only place where they leave the device."""
        names = sorted(self.recent)
        if not names:  # neither network has had its turn yet
            return {}
        means = torch.stack([torch.stack(self.recent[name]).mean() for name in names])
        losses = dict(zip(names, self.accelerator.reduce(means, reduction="mean").tolist(), strict=True))
        self.recent.clear()
        then, waited, images = self.since
        self.since = now, waited_now, images_now = (time.monotonic(), self.loader.waited, self.images)
        seconds = max(now - then, 1e-9)
        values = {
            "images": self.images, "epoch": self.epoch, "seconds": seconds,
            "images_per_second": (images_now - images) / seconds, "data_wait": (waited_now - waited) / seconds,
            "lr": self.recipe.generator_adam.lr * self._rate_factor(), "losses": losses, **self._substituted(),
            "skipped": self._skipped(),
        }  # fmt: skip
        self.journal.write("train", self.step, values)
        shown: dict[str, str] = {n: f"{losses[n]:.3f}" for n in ("generator", "critic", "l1") if n in losses}
        return {**shown, "data wait": f"{values['data_wait']:.1%}"}

    def _substituted(self) -> dict[str, int]:
        """How many positions got another sample since this start, over all ranks, where that is allowed."""
        if not self.data.max_damaged:
            return {}
        mine = torch.tensor(self.loader.substituted, device=self.accelerator.device)
        return {"substituted": int(self.accelerator.reduce(mine, reduction="sum").item())}

    def _skipped(self) -> int:
        """How many updates were left out since the last line; raises `UserError` when it never ends."""
        total = 0
        for name, network in (("generator", self.generator), ("critic", self.critic)):
            count, in_a_row = network.skips.read()
            total += count
            if in_a_row >= self.engine.max_skipped:
                raise UserError(
                    f"{self.run}: step {self.step}: {in_a_row} updates of the {name} in a row had a loss or gradients "
                    f"that are not finite and were left out: lower {name}_adam.lr, set {name}_adam.clip, or use bf16"
                )
        return total

    def _tell(self, text: str) -> None:
        print(f"rank {self.accelerator.process_index}: {text}", file=sys.stderr, flush=True)

    def _evaluated(self) -> nn.Module:
        return self.average if self.average is not None else self.generator.module

    def _validate(self) -> None:
        split = self.data.validation
        if split is None:
            return
        began, recipe = time.monotonic(), self.recipe
        scores = score_split(
            self._evaluated(), recipe.codec, split, self.accelerator.device,
            rank=self.accelerator.process_index, world=self.accelerator.num_processes, dropout=recipe.test_dropout,
            metrics="core",
        )  # fmt: skip
        self.journal.write("validation", self.step, {"images": self.images, "epoch": self.epoch, **scores})
        if self.step % recipe.evaluate_every == 0:  # not the one at the end: a longer run would not have had it
            self.plateau.see(scores["metrics"]["l1"]["generated"])
        self._draw(split)
        then, waited, images = self.since
        self.since = (then + time.monotonic() - began, waited, images)  # rates are of training alone

    def _draw(self, split: Split) -> None:
        if not self.accelerator.is_main_process:
            return
        chosen = np.linspace(0, len(split) - 1, min(_SAMPLES, len(split))).round().astype(int)
        lab = stored_to_lab(torch.from_numpy(split.read(chosen))).to(self.accelerator.device)
        generated = generate(self._evaluated(), self.recipe.codec, lab, dropout=self.recipe.test_dropout)
        self.journal.picture("samples", self.step, sample_grid(lab, generated))

    def _save(self, more: Mapping[str, Tensors] | None = None) -> None:
        """All ranks arrive, rank 0 writes."""
        if self.accelerator.is_main_process:
            save_checkpoint(self.run, self.step, {**self._parts(), **(more or {})}, self.recipe, self._state())
            keep_newest(self.run, self.step, self.recipe.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _leave_early(self) -> None:
        """Save where the recipe asks for no checkpoint, so that going on from it changes nothing; close everything."""
        if self.step != self.started_at and self.step % self.recipe.checkpoint_every:
            several = self.accelerator.num_processes > 1
            own = {name: buffers_of_ranks(module) for name, module in self._modules().items()} if several else {}
            self._agree_on_buffers()
            self._save({f"{name}_ranks": buffers for name, buffers in own.items() if buffers})
        self.journal.write("stop", self.step, {"images": self.images})
        self.journal.end()
        self.held.close()

    def _modules(self) -> dict[str, nn.Module]:
        modules = {"generator": self.generator.module, "critic": self.critic.module}
        return modules if self.average is None else {**modules, "ema": self.average}

    def _parts(self) -> dict[str, dict[str, Tensor]]:
        parts = {"generator": self.generator.module.state_dict(), "critic": self.critic.module.state_dict()}
        parts["generator_adam"] = adam_tensors(self.generator.optimizer, self.generator.module)
        parts["critic_adam"] = adam_tensors(self.critic.optimizer, self.critic.module)
        if self.average is not None:
            parts["ema"] = self.average.state_dict()
        return parts

    def _state(self) -> dict[str, object]:
        scaler = self.accelerator.scaler
        return {
            "images": self.images, "dataset_id": self.dataset_id, "recipe": self.recipe.digest,
            "order": ORDER_VERSION, "torch": torch.__version__, "scaler": scaler.state_dict() if scaler else None,
            "plateau": self.plateau.state(),
        }  # fmt: skip

    def _load(self, folder: Path) -> None:
        state = load_state(folder)
        if state["dataset_id"] != self.dataset_id:
            raise UserError(
                f"{self.run} was trained on dataset {state['dataset_id']}, the shards given are {self.dataset_id}: "
                f"give the same shards, or another --run"
            )
        if state["order"] != ORDER_VERSION:
            raise UserError(f"{folder} counts positions in order {state['order']}, this version in {ORDER_VERSION}")
        self.generator.module.load_state_dict(load_part(folder, "generator"))
        self.critic.module.load_state_dict(load_part(folder, "critic"))
        load_adam(self.generator.optimizer, self.generator.module, load_part(folder, "generator_adam"))
        load_adam(self.critic.optimizer, self.critic.module, load_part(folder, "critic_adam"))
        if self.average is not None:
            self.average.load_state_dict(load_part(folder, "ema"))
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        for name, module in self._modules().items():
            self._load_own_buffers(folder / f"{name}_ranks.safetensors", module)
        self.plateau.load(state["plateau"])
        self.step, self.images = state["step"], state["images"]

    def _load_own_buffers(self, path: Path, module: nn.Module) -> None:
        """Running statistics of this rank, from a checkpoint between two of the recipe's and as many processes."""
        of_ranks = load_part(path.parent, path.stem) if path.is_file() else {}
        if any(len(buffer) == self.accelerator.num_processes for buffer in of_ranks.values()):
            take_back_buffers(module, of_ranks, self.accelerator.process_index)

    def _finish(self) -> None:
        self.journal.write("end", self.step, {"images": self.images})
        self.journal.end()
        self.held.close()
