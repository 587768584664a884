"""The training loop over Accelerate: knows no task, no Hub and no command line.

A step is planned from (sizes, batch size, order, seed, epoch) alone and computed from (seed, step) alone, so
the whole state of a run is its weights, its optimizer and a step number.
"""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator

from hubtune import checkpoint, evaluate
from hubtune.batching import cut, steps_of_epoch
from hubtune.checkpoint import Checkpoint
from hubtune.contract import Base, Plan, Rows, Strategy, Task
from hubtune.device import Compute
from hubtune.encoding import Encoded
from hubtune.errors import NonFiniteLoss, ResumeError, TrainingError
from hubtune.gradient import Gradient
from hubtune.journal import open_log, stopping
from hubtune.labels import row_numbers
from hubtune.recipe import TrainPart
from hubtune.schedule import boundaries, rate, steps_in, validates
from hubtune.watch import Watcher

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass
class Work:
    """All that the loop needs, as plain values."""

    task: Task[Any]
    strategy: Strategy[Any]
    base: Base
    model: Module
    fresh: frozenset[str]
    train: Encoded
    validation: Encoded
    validation_rows: Rows
    settings: TrainPart
    compute: Compute
    folder: Path
    resume: bool = False


@dataclass
class Progress:
    """Where a run is: with weights and optimizer, everything a checkpoint holds."""

    step: int = 0
    best: list[float] | None = None
    best_step: int = 0
    waited: int = 0
    stopped: bool = False
    seconds: float = 0.0
    strategy: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The trained module (as the strategy made it) and how it came to be."""

    model: Module
    steps: int
    epochs: float
    best_step: int
    seconds: float
    trainable: int
    early: bool


def fit(work: Work, watcher: Watcher) -> Outcome:
    """Train, keep the best weights by the validation metric, and leave a folder that can be resumed."""
    loop = Loop(work, watcher)
    try:
        return loop.run()
    finally:
        loop.close()


class Loop:
    """One training, from its first step or from a checkpoint to its last."""

    def __init__(self, work: Work, watcher: Watcher) -> None:
        self.work, self.watcher = work, watcher
        settings = work.settings
        self.epoch_steps, self.steps = steps_in(settings, work.train.rows)
        self.accelerator = Accelerator(
            cpu=work.compute.device == "cpu", log_with=settings.track, project_dir=str(work.folder)
        )
        if settings.track:
            self.accelerator.init_trackers("hubtune", config={k: v for k, v in vars(settings).items() if v is not None})
        torch.manual_seed(settings.seed % 2**63)  # what a strategy adds starts from the seed, too
        plan = Plan(self.steps, self.steps / self.epoch_steps, settings.batch_size or 0)
        module = work.strategy.prepare(work.model, work.fresh, work.task, plan)
        if work.compute.precision == "fp64":
            module = module.double()
        self.module: Module = module
        self.phases = work.strategy.phases()
        self.ends = boundaries([phase.share for phase in self.phases], self.steps)
        self.learned = self.all_that_learns()
        parameters = dict(module.named_parameters())
        self.trainable = sum(parameters[name].numel() for name in self.learned)
        if not self.trainable:
            raise TrainingError(f"the strategy '{work.strategy.name}' leaves nothing to train in this model.")
        checkpoint.refuse_full_disk(work.folder, sum(p.numel() for p in parameters.values()), self.trainable)
        self.statistics = [part for name, part in module.named_modules() if self.keeps_statistics(name, part)]
        self.scaler = torch.amp.GradScaler(work.compute.device, enabled=work.compute.precision == "fp16")
        self.gradient = Gradient(work, self.accelerator, self.scaler)
        self.rows_examples = work.train.of_rows()
        self.row_sizes = work.train.row_sizes()
        self.progress = Progress()
        self.checkpoints = work.folder / "checkpoints"
        self.saved = self.begun = time.monotonic()
        self.stop = threading.Event()
        self.phase = -1
        self.log = open_log(work.folder / "log.jsonl", self.restore() if work.resume else 0)
        self.main = self.accelerator.is_main_process
        self.planned: tuple[int, list[Any]] = (-1, [])

    def all_that_learns(self) -> frozenset[str]:
        """Names of the parameters that learn in any phase: what checkpoints hold."""
        found: set[str] = set()
        for phase in self.phases:
            self.work.strategy.enter(self.module, phase)
            found |= {name for name, parameter in self.module.named_parameters() if parameter.requires_grad}
        return frozenset(found)

    def keeps_statistics(self, name: str, part: Module) -> bool:
        """Whether a batch norm's running statistics are pretrained: a few small batches would overwrite them."""
        if self.work.settings.batch_norm == "train" or not isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            return False
        return not any(fresh.startswith(f"{name}.") for fresh in self.work.fresh)

    def enter(self, index: int) -> None:
        """Begin a phase: what learns, its optimizer, and the model as devices wrap it."""
        work, phase = self.work, self.phases[index]
        work.strategy.enter(self.module, phase)
        groups = work.strategy.groups(self.module, work.settings.weight_decay or 0.0)
        optimizer = work.strategy.optimizer(groups, work.settings.lr or 0.0)
        self.model, self.optimizer = self.accelerator.prepare(self.module, optimizer)
        self.phase, self.progress.waited = index, 0

    def close(self) -> None:
        """Let go of files and trackers, whatever happened."""
        self.log.close()
        self.watcher.end()
        if self.work.settings.track:
            self.accelerator.end_training()

    def run(self) -> Outcome:
        """All steps from here on; then the weights that are the result are in the model."""
        self.watcher.begin("training", self.steps)
        self.watcher.advance(self.progress.step)
        with stopping(self.stop):
            while self.progress.step < self.steps and not self.progress.stopped:
                self.one_step()
                if validates(self.work.settings, self.progress.step, self.epoch_steps, self.steps):
                    self.validate()
                    self.save()
                elif time.monotonic() - self.saved > 60 * self.work.settings.save_minutes:
                    self.save()
                if self.stop.is_set() and self.progress.step < self.steps:
                    self.save()
                    raise TrainingError(
                        f"stopped after step {self.progress.step} of {self.steps}; everything up to there is saved.",
                        hint=f"Go on with: hubtune train --resume {self.work.folder}",
                    )
        self.take_result()
        done = self.progress.step
        return Outcome(
            self.module, done, done / self.epoch_steps,
            self.progress.best_step if self.work.settings.keep == "best" else done,
            self.progress.seconds + time.monotonic() - self.begun, self.trainable, self.progress.stopped,
        )

    def rows_of(self, step: int) -> Any:
        """The rows of a step, from its number alone."""
        epoch, place = divmod(step, self.epoch_steps)
        if self.planned[0] != epoch:
            settings = self.work.settings
            self.planned = (epoch, steps_of_epoch(
                self.row_sizes, settings.batch_size or 1, settings.order, settings.seed, epoch
            ))
        return self.planned[1][place]

    def one_step(self) -> None:
        """Forward and backward over every micro-batch of the step, then one move of the weights."""
        work, step = self.work, self.progress.step
        phase = next(index for index, end in enumerate(self.ends) if step < end)
        if phase != self.phase:
            self.enter(phase)
        self.model.train()
        for part in self.statistics:
            part.eval()
        start, end = (0, *self.ends)[phase], self.ends[phase]
        factor = self.phases[phase].rate * rate(work.settings, step - start, end - start)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"] * group.get("rate", 1.0))
            group["lr"] = group["initial_lr"] * factor
        rows = self.rows_of(step)
        items = [example for row in rows for example in self.rows_examples[row]]
        sizes = [int(work.train.sizes[item]) for item in items]
        cuts = cut(items, sizes, work.compute.overhead, work.compute.limit, work.compute.uniform)
        losses = self.gradient.of_step(self.model, step, step // self.epoch_steps, cuts)
        loss = sum(losses.values())
        if not math.isfinite(loss):
            raise NonFiniteLoss(
                f"the loss of step {step} is {loss}; its rows in train: {row_numbers(sorted(int(row) for row in rows))}.",
                hint="Try a lower train.lr, or train.precision=fp32. The last good state: "
                f"hubtune train --resume {work.folder}",
            )
        self.scaler.unscale_(self.optimizer.optimizer)
        trained = [p for p in self.module.parameters() if p.requires_grad]
        clip = work.settings.clip or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(trained, clip))
        self.scaler.step(self.optimizer.optimizer)
        self.scaler.update()
        work.strategy.after_step(self.module, step, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step = step + 1
        padded = sum(len(part) * max(int(work.train.sizes[i]) for i in part) for part in cuts)
        self.record({
            "step": step + 1, "epoch": round((step + 1) / self.epoch_steps, 4), **losses,
            "lr": self.optimizer.param_groups[0]["lr"], "grad_norm": norm, "rows": len(rows),
            "tokens": sum(sizes), "padded_tokens": padded, "micro_batches": len(cuts),
        })
        self.watcher.advance(1, loss=loss)

    def validate(self) -> None:
        """Score the validation rows, remember the best weights, and count how long nothing got better."""
        work, progress = self.work, self.progress
        answers = evaluate.answer(
            self.module, work.task, work.base, work.validation_rows, work.validation,
            accelerator=self.accelerator, real=False, losses=True, uniform=work.compute.uniform,
        )
        scores = work.task.score(answers.predictions, list(work.validation_rows), work.base)
        metric = work.task.metric_of(work.base)
        sign = 1.0 if metric.higher_is_better else -1.0
        rank = [sign * scores[metric.name], -sum(answers.losses.values())]  # a tie goes to the lower loss
        better = progress.best is None or rank > progress.best
        if better:
            progress.best, progress.best_step, progress.waited = rank, progress.step, 0
            if self.main and work.settings.keep == "best":
                checkpoint.write(self.checkpoints, "best", Checkpoint(
                    {"model": checkpoint.moving(self.module, self.learned)}, {"step": progress.step, "scores": scores}
                ))
        else:
            progress.waited += 1
            # Only the last phase may end early: before it, not all that shall learn has learned.
            tired = 0 < work.settings.patience <= progress.waited
            progress.stopped = tired and self.phase == len(self.phases) - 1
        record = {
            "step": progress.step, "epoch": round(progress.step / self.epoch_steps, 4), "split": "validation",
            **{f"validation_{name}": value for name, value in {**answers.losses, **scores}.items()}, "best": better,
        }
        self.record(record)
        self.watcher.validated(record, better)

    def record(self, line: dict[str, Any]) -> None:
        """A line of `log.jsonl`, and of the tracker."""
        if self.accelerator.is_main_process:
            self.log.write(json.dumps(line) + "\n")
            if "split" in line:
                self.log.flush()
        if self.work.settings.track:
            self.accelerator.log({k: v for k, v in line.items() if isinstance(v, int | float)}, step=line["step"])

    def save(self) -> None:
        """A checkpoint of this step."""
        self.accelerator.wait_for_everyone()
        self.saved = time.monotonic()
        if not self.main:
            return
        self.log.flush()
        progress = self.progress
        tensors, plain = checkpoint.optimizer_state(self.optimizer.optimizer)
        state = {
            **vars(progress), "seconds": progress.seconds + time.monotonic() - self.begun,
            "strategy": self.work.strategy.state(), "optimizer": plain, "scaler": self.scaler.state_dict(),
            "compute": self.work.compute.as_dict(), "steps": self.steps, "phase": self.phase,
        }
        groups = {"model": checkpoint.moving(self.module, self.learned), "optimizer": tensors}
        checkpoint.write(self.checkpoints, f"step-{progress.step:09d}", Checkpoint(groups, state))
        checkpoint.prune(self.checkpoints)

    def restore(self) -> int:
        """Take the newest whole checkpoint's state, and return its step; 0 where there is none yet."""
        found = checkpoint.newest(self.checkpoints)
        if found is None:
            return 0
        state = dict(found.state)
        if state.pop("steps") != self.steps:
            raise ResumeError("the checkpoint belongs to a run of another length.", hint="Train anew with --overwrite.")
        self.enter(state.pop("phase"))  # the next step enters another one where this was its last
        checkpoint.put_back(self.module, found.tensors["model"], self.learned)
        checkpoint.restore_optimizer(self.optimizer.optimizer, found.tensors["optimizer"], state.pop("optimizer"))
        self.scaler.load_state_dict(state.pop("scaler"))
        self.work.strategy.restore(state["strategy"])
        state.pop("compute")
        self.progress = Progress(**state)
        return self.progress.step

    def take_result(self) -> None:
        """Put the best weights into the model, unless the last are wanted."""
        self.accelerator.wait_for_everyone()
        if self.work.settings.keep != "best":
            return
        best = checkpoint.read(self.checkpoints / "best")
        if best is None:
            raise ResumeError("the best weights cannot be read back.", hint="Train anew with --overwrite.")
        checkpoint.put_back(self.module, best.tensors["model"], self.learned)
