"""The training loop over Accelerate: knows no task, no Hub and no command line.

A step is planned from (sizes, batch size, order, seed, epoch) alone and computed from (seed, step) alone, so
the whole state of a run is its weights, its optimizer and a step number.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator

from hubtune import checkpoint, evaluate
from hubtune.batching import cut, share, steps_of_epoch
from hubtune.checkpoint import Checkpoint
from hubtune.contract import Base, Batch, Draw, Loss, Plan, Rows, Strategy, Task
from hubtune.device import Compute
from hubtune.encoding import Encoded
from hubtune.errors import NonFiniteLoss, ResumeError, TrainingError
from hubtune.journal import open_log, stopping
from hubtune.labels import row_numbers
from hubtune.recipe import TrainPart
from hubtune.schedule import rate, steps_in, validates
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
        groups = work.strategy.groups(module, settings.weight_decay or 0.0)
        self.trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
        if not self.trainable:
            raise TrainingError(f"the strategy '{work.strategy.name}' leaves nothing to train in this model.")
        checkpoint.refuse_full_disk(work.folder, sum(p.numel() for p in module.parameters()), self.trainable)
        optimizer = work.strategy.optimizer(groups, settings.lr or 0.0)
        self.model, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.module: Module = self.accelerator.unwrap_model(self.model)
        self.scaler = torch.amp.GradScaler(work.compute.device, enabled=work.compute.precision == "fp16")
        self.rows_examples = work.train.of_rows()
        self.row_sizes = work.train.row_sizes()
        self.progress = Progress()
        self.checkpoints = work.folder / "checkpoints"
        self.saved = self.begun = time.monotonic()
        self.stop = threading.Event()
        self.log = open_log(work.folder / "log.jsonl", self.restore() if work.resume else 0)
        self.main = self.accelerator.is_main_process
        self.planned: tuple[int, list[Any]] = (-1, [])

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
        self.model.train()
        factor = rate(work.settings, step, self.steps)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"] * group.get("rate", 1.0))
            group["lr"] = group["initial_lr"] * factor
        rows = self.rows_of(step)
        items = [example for row in rows for example in self.rows_examples[row]]
        sizes = [int(work.train.sizes[item]) for item in items]
        cuts = cut(items, sizes, work.compute.overhead, work.compute.limit, work.compute.uniform)
        losses = self.backward(step, cuts)
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

    def backward(self, step: int, cuts: list[list[int]]) -> dict[str, float]:
        """Gradients of the step's mean loss, however it is cut. Returns the mean of every term.

        Denominators come first, over all micro-batches and devices; each micro-batch then adds its share.
        """
        work, accelerator = self.work, self.accelerator
        epoch = step // self.epoch_steps
        world = accelerator.num_processes
        mine = []
        for index, items in share(cuts, world, accelerator.process_index):
            weight = 1.0 if items else 0.0  # every rank runs as many forward passes as the others
            items = items or cuts[0][:1]
            draws = [Draw(work.settings.seed, epoch, int(work.train.owner[item])) for item in items]
            examples = [work.train.examples[item] for item in items]
            mine.append((index, weight, evaluate.batch_on(work.task, examples, work.base, draws, accelerator.device)))
        counts: dict[str, float] = defaultdict(float)
        for _, weight, batch in mine:
            for name, count in work.task.count(batch).items():
                counts[name] += weight * count
        if world > 1:
            names = sorted(counts)
            sums = accelerator.reduce(torch.tensor([counts[n] for n in names], dtype=torch.float64).to(accelerator.device))
            counts = dict(zip(names, sums.tolist(), strict=True))
        means: dict[str, float] = defaultdict(float)
        for position, (index, weight, batch) in enumerate(mine):
            # Dropout is drawn from the step and the cut, so that a resumed step draws what it drew before.
            torch.manual_seed(((work.settings.seed * 1_000_003 + step) * 4_099 + index) % 2**63)
            last = position == len(mine) - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(self.model):
                with self.autocast():
                    terms = self.terms(batch, step)
                objective: Any = 0.0
                for term in terms:
                    share_of = term.total / (counts.get(term.name, 0.0) or term.count * len(cuts) or 1.0)
                    objective = objective + term.weight * weight * share_of
                    means[term.name] += weight * float(share_of.detach())
                self.scaler.scale(objective * world).backward()  # DDP averages over devices; this undoes it
        if world > 1:
            names = sorted(means)
            sums = accelerator.reduce(torch.tensor([means[n] for n in names], dtype=torch.float64).to(accelerator.device))
            means = dict(zip(names, sums.tolist(), strict=True))
        return dict(means)

    def terms(self, batch: Batch, step: int) -> list[Loss]:
        """The loss of a micro-batch; what a plugin or a model raises says where it happened."""
        try:
            return evaluate.as_terms(self.work.strategy.loss(self.work.task, self.model, batch))
        except Exception as error:
            shapes = {name: tuple(getattr(value, "shape", ())) for name, value in batch.inputs.items()}
            error.add_note(f"in step {step}, task '{self.work.task.name}', strategy '{self.work.strategy.name}', "
                           f"model type '{self.work.base.config.model_type}', inputs {shapes}")
            raise

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Half precision for matrix products where the plan says so.

        Ours and not Accelerate's, whose wrapper stays on the model and would make evaluation inexact.
        """
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.work.compute.precision)
        return torch.autocast(self.work.compute.device, dtype) if dtype else contextlib.nullcontext()

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
                    {"model": checkpoint.moving(self.module)}, {"step": progress.step, "scores": scores}
                ))
        else:
            progress.waited += 1
            progress.stopped = 0 < work.settings.patience <= progress.waited
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
            "compute": self.work.compute.as_dict(), "steps": self.steps,
        }
        groups = {"model": checkpoint.moving(self.module), "optimizer": tensors}
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
        checkpoint.put_back(self.module, found.tensors["model"])
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
        checkpoint.put_back(self.module, best.tensors["model"])
