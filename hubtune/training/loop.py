"""The training loop over Accelerate: knows no task, no Hub and no command line.

A step is planned from (sizes, batch size, order, seed, epoch) alone and computed from (seed, step) alone, so
the whole state of a run is its weights, its optimizer and a step number.
"""

from __future__ import annotations

import io
import json
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from hubtune.callbacks import Callbacks
from hubtune.contract import Plan
from hubtune.data.batching import steps_of_epoch
from hubtune.data.dataset import EncodedDataset
from hubtune.data.labels import row_numbers
from hubtune.data.row_batches import BatchedRows
from hubtune.devices import processes, sharding
from hubtune.errors import NonFiniteLoss, ResumeError, TrainingError
from hubtune.evaluation import inference
from hubtune.record import migrate_checkpoint
from hubtune.training import checkpoint
from hubtune.training.checkpoint import Checkpoint
from hubtune.training.checkpoint_writer import Saver
from hubtune.training.context import TrainingContext
from hubtune.training.log import open_log, stopping
from hubtune.training.schedule import steps_in, validates
from hubtune.training.state import TrainingState

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass
class Progress:
    """Where a run is: with what the training state says of itself, everything a checkpoint holds.

    seconds: in all; learning: of the steps alone. tokens, padded: what the steps have read, without and with padding.
    """

    step: int = 0
    best: list[float] | None = None
    best_step: int = 0
    waited: int = 0
    stopped: bool = False
    seconds: float = 0.0
    learning: float = 0.0
    tokens: int = 0
    padded: int = 0


@dataclass(frozen=True)
class Outcome:
    """The trained module (as the strategy made it) and how it came to be."""

    model: Module
    steps: int
    epochs: float
    best_step: int
    seconds: float
    trainable: int
    learned: frozenset[str]
    plan: Plan
    early: bool
    features: dict[str, Any]
    pace: dict[str, Any]


def fit(context: TrainingContext, callbacks: Callbacks) -> Outcome:
    """Train, keep the best weights by the validation metric, and leave a folder that can be resumed."""
    loop = Loop(context, callbacks)
    try:
        return loop.run()
    finally:
        loop.close()


class Loop:
    """One training, from its first step or from a checkpoint to its last."""

    def __init__(self, context: TrainingContext, callbacks: Callbacks) -> None:
        self.context, self.callbacks = context, callbacks
        windows, rows = context.windows, context.train.rows
        self.epoch_steps, self.steps = steps_in(context.settings, windows.rows if windows else rows)
        self.window_steps = windows.size // (context.settings.batch_size or 1) if windows else self.epoch_steps
        self.accelerator = tracked(context)
        self.state = TrainingState(context, self.accelerator, self.steps, self.steps / self.epoch_steps)
        self.look_at(context.train)
        self.planned: tuple[tuple[int, int], list[Any]] = ((-1, 0), [])
        self.progress = Progress()
        self.checkpoints = context.folder / "checkpoints"
        self.saver = Saver(self.checkpoints, context.folder / "log.jsonl")
        self.reserved = -1  # the phase that the saver has room for
        self.saved = self.begun = time.monotonic()
        self.stop = threading.Event()
        self.main = self.accelerator.is_main_process
        start = self.restore() if context.resume else 0
        self.state.compute_once(callbacks)
        self.log = open_log(context.folder / "log.jsonl", start) if self.main else io.StringIO()

    def close(self) -> None:
        """Let go of files and trackers, whatever happened; a checkpoint that was begun becomes whole."""
        self.state.features.release()
        self.saver.close()
        self.log.close()
        self.callbacks.on_progress_end()
        if self.context.settings.report_to:
            self.accelerator.end_training()

    def run(self) -> Outcome:
        """All steps from here on; then the weights that are the result are in the model."""
        self.callbacks.on_progress_start("training", self.steps)
        self.callbacks.on_progress(self.progress.step)
        with stopping(self.stop):
            while self.progress.step < self.steps and not self.progress.stopped:
                self.one_step()
                best = None
                validated = validates(self.context.settings, self.progress.step, self.epoch_steps, self.steps)
                if validated:
                    best = self.validate()
                stop, due = self.asked()
                if validated or stop or due:
                    self.save(best)
                if stop:
                    self.saver.wait()
                    raise processes.once(TrainingError(
                        f"stopped after step {self.progress.step} of {self.steps}; everything up to there is saved.",
                        hint=f"Go on with: hubtune train --resume {self.context.folder}",
                    ))
        self.saver.wait()
        keeps_best = self.context.settings.keep == "best"
        self.state.finish(self.checkpoints / "best" if keeps_best else None)
        done = self.progress.step
        return Outcome(
            self.state.module, done, done / self.epoch_steps, self.progress.best_step if keeps_best else done,
            self.progress.seconds + time.monotonic() - self.begun, self.state.trainable,
            self.state.learned, self.state.plan, self.progress.stopped,
            self.state.features.described(), self.pace(),
        )

    def pace(self) -> dict[str, Any]:
        """What the steps have read, and how fast. Padding is no context: tokens a second are without it."""
        progress, seconds = self.progress, max(1e-9, self.progress.learning)
        return {
            "tokens": progress.tokens, "padded_tokens": progress.padded,
            "padding": round(1 - progress.tokens / max(1, progress.padded), 4),
            "tokens_per_second": round(progress.tokens / seconds, 1),
            "seconds_an_epoch": round(seconds / max(1, progress.step) * self.epoch_steps, 3),
        }

    def asked(self) -> tuple[bool, bool]:
        """Whether Ctrl-C or SIGTERM asked to stop before the end, and whether a save is due by the first process' clock.

        Processes agree after every step: one that stops alone leaves the others waiting.
        """
        due = self.main and time.monotonic() - self.saved > 60 * self.context.settings.save_minutes
        stop, due = processes.any_of(self.stop.is_set(), due)
        return stop and self.progress.step < self.steps, due

    def rows_of(self, step: int) -> Any:
        """The rows of a step, from its number alone; of a stream, as rows of the window that is then at hand."""
        epoch, place = divmod(step, self.epoch_steps)
        window, place = divmod(place, self.window_steps)
        if self.planned[0] != (epoch, window):
            settings = self.context.settings
            if self.context.windows is not None:
                self.look_at(self.context.windows.open(window))
            number = epoch * -(-self.epoch_steps // self.window_steps) + window
            self.planned = ((epoch, window), steps_of_epoch(
                self.row_sizes, settings.batch_size or 1, settings.sampler or "random", settings.seed, number
            ))
        return self.planned[1][place]

    def look_at(self, train: EncodedDataset) -> None:
        """Have these examples as those that are trained on: all, or a window of a stream."""
        self.context.train = train
        self.rows_examples = train.examples_by_row()
        self.row_sizes = train.row_sizes()

    def one_step(self) -> None:
        """The next step, and what is said of it."""
        begun, step = time.monotonic(), self.progress.step
        rows = self.rows_of(step)
        if self.state.begin(step):
            self.progress.waited = 0
        items = [example for row in rows for example in self.rows_examples[row]]
        learnt = self.state.learn(step, step // self.epoch_steps, items)
        loss = sum(learnt.losses.values())
        if not math.isfinite(loss):
            raise processes.once(NonFiniteLoss(
                f"the loss of step {step} is {loss}; its rows in train: {row_numbers(sorted(self.context.train.first + int(row) for row in rows))}.",
                hint="Try a lower train.learning_rate, or train.precision=fp32. The last good state: "
                f"hubtune train --resume {self.context.folder}",
            ))
        norm = self.state.move(step)
        self.reserve()
        self.progress.step = step + 1
        self.progress.learning += time.monotonic() - begun
        self.progress.tokens += learnt.tokens
        self.progress.padded += learnt.padded
        self.record({
            "step": step + 1, "epoch": round((step + 1) / self.epoch_steps, 4), **learnt.losses, "lr": learnt.lr,
            "grad_norm": norm, "rows": len(rows), "tokens": learnt.tokens, "padded_tokens": learnt.padded,
            "padding": round(1 - learnt.tokens / max(1, learnt.padded), 4), "micro_batches": learnt.micro_batches,
        })
        self.callbacks.on_progress(1, loss=loss)

    def validate(self) -> dict[str, float] | None:
        """Score the validation rows, and count how long nothing got better; the scores if these weights are the best so far."""
        context, progress = self.context, self.progress
        with self.state.vocabularies.whole():
            answers = inference.answer(
                self.state.module, context.task, context.base, context.validation_rows, context.validation,
                accelerator=self.accelerator, real=False, losses=True, uniform=context.compute.uniform,
                limit=context.compute.evaluation, known=self.state.features.validation,
            )
        scores = context.task.score(answers.predictions, list(BatchedRows(context.validation_rows)), context.base)
        metric = context.task.select_metric(context.base)
        sign = 1.0 if metric.higher_is_better else -1.0
        rank = [sign * scores[metric.name], -sum(answers.losses.values())]  # a tie goes to the lower loss
        better = progress.best is None or rank > progress.best
        if better:
            progress.best, progress.best_step, progress.waited = rank, progress.step, 0
        else:
            progress.waited += 1
            # Only the last phase may end early: before it, not all that shall learn has learned.
            tired = 0 < context.settings.early_stopping_patience <= progress.waited
            progress.stopped = tired and self.state.phase == len(self.state.phases) - 1
        record = {
            "step": progress.step, "epoch": round(progress.step / self.epoch_steps, 4), "split": "validation",
            **{f"validation_{name}": value for name, value in {**answers.losses, **scores}.items()}, "best": better,
            "tokens_per_second": self.pace()["tokens_per_second"],
        }
        self.record(record)
        self.callbacks.on_evaluate(record, better)
        return scores if better else None

    def record(self, line: dict[str, Any]) -> None:
        """A line of `log.jsonl`, and of the tracker."""
        if self.accelerator.is_main_process:
            self.log.write(json.dumps(line) + "\n")
            if "split" in line:
                self.log.flush()
        if self.context.settings.report_to:
            self.accelerator.log({k: v for k, v in line.items() if isinstance(v, int | float)}, step=line["step"])

    def reserve(self) -> None:
        """Once a phase, when its optimizer has a state: room for what will be saved."""
        if self.main and self.reserved != self.state.phase:
            self.reserved = self.state.phase
            with self.state.vocabularies.whole():
                self.saver.reserve(self.state.state()[0])

    def save(self, best: Mapping[str, float] | None = None) -> None:
        """A checkpoint of this step, begun: the loop goes on once all is copied. best: scores, if its weights are the best."""
        if not self.main:
            sharding.take_part(self.state.state()[0])
            return
        self.saved = time.monotonic()
        self.log.flush()
        progress = self.progress
        with self.state.vocabularies.whole():
            tensors, plain = self.state.state()
            made = {f"step-{progress.step:09d}": Checkpoint(tensors, {
                "progress": {**vars(progress), "seconds": progress.seconds + time.monotonic() - self.begun},
                "state": plain, "compute": self.context.compute.as_dict(), "steps": self.steps,
                "stream": self.context.windows and self.context.windows.position(),
            })}
            if best is not None and self.context.settings.keep == "best":
                # Before the other: whoever goes on from there finds the weights that it calls the best.
                made = {"best": Checkpoint({"model": tensors["model"]}, {"step": progress.step, "scores": best}), **made}
            self.saver.save(made)

    def restore(self) -> int:
        """Take the newest whole checkpoint's state, and return its step; 0 where there is none yet."""
        found = processes.together(checkpoint.newest(self.checkpoints) if self.main else None)
        if found is None:
            return 0
        if found.state["steps"] != self.steps:
            raise processes.once(ResumeError("the checkpoint belongs to a run of another length.", hint="Train anew with --overwrite."))
        self.state.restore(found.tensors, migrate_checkpoint(found.state)["state"])
        if self.context.windows is not None:
            self.context.windows.stream.restore(found.state["stream"])
        self.progress = Progress(**found.state["progress"])
        return self.progress.step


def tracked(context: TrainingContext) -> Accelerator:
    """Accelerate on the device that was chosen, with the tracker that the user wants."""
    settings = context.settings
    # Buffers are sent after a step (`TrainingState.move`): in a forward pass processes would wait for one that has no memory for it.
    plainly = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(  # a launcher's wishes for half precision and compilation would stay on the model, in evaluation too
        cpu=context.compute.device == "cpu", mixed_precision="no", dynamo_backend="no", kwargs_handlers=[plainly], log_with=settings.report_to, project_dir=str(context.folder),
    )
    if settings.report_to:
        accelerator.init_trackers("hubtune", config={k: v for k, v in vars(settings).items() if v is not None})
    return accelerator
