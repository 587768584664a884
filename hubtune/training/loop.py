"""The training loop, over Accelerate: batch, forward, loss, backward, step, validate, save.

It is independent of tasks, the Hub and the command line. The rows of a step depend on (sizes, batch
size, sampler, seed, epoch), and its computation on (seed, step, rows), so that the state of a run
is its weights, its optimizer and a step number.
"""

from __future__ import annotations

import io
import json
import math
import shlex
import time
from collections.abc import Callable, Mapping
from typing import Any

from hubtune.acceleration import composition
from hubtune.acceleration.interface import BatchRows
from hubtune.callbacks import Callbacks
from hubtune.contract import Prediction
from hubtune.data.labels import row_numbers
from hubtune.data.row_batches import BatchedRows
from hubtune.devices import processes, sharding
from hubtune.errors import NonFiniteLoss, TrainingError
from hubtune.evaluation import metrics
from hubtune.evaluation.inference import Predictor
from hubtune.training import checkpoint
from hubtune.training.accumulation import Accumulation, StepResult
from hubtune.training.checkpoint import Checkpoint
from hubtune.training.checkpoint_writer import Saver
from hubtune.training.context import TrainingContext
from hubtune.training.log import StopRequest, handle_stop_signals, open_log
from hubtune.training.progress import Outcome, Progress
from hubtune.training.schedule import count_steps, is_validation_step
from hubtune.training.state import TrainingState, make_accelerator
from hubtune.training.steps import Sampler

LAST_SECONDS = 5.0
"""Seconds before the last step in which what follows the training can be got ready."""
VALIDATED_SECONDS = 30.0
"""Seconds between checkpoints that are written after a validation: a shorter run is soon repeated."""


def fit(context: TrainingContext, callbacks: Callbacks) -> Outcome:
    """Train, keep the best weights by the validation metric, and leave a resumable folder."""
    loop = Loop(context, callbacks)
    try:
        return loop.run()
    finally:
        loop.close()


class Loop:
    """One training, from its first step or a checkpoint to its last step."""

    def __init__(self, context: TrainingContext, callbacks: Callbacks,
                 on_last_seconds: Callable[[], None] | None = None) -> None:
        """Prepare a training.

        Args:
            on_last_seconds: called once in the first process, about `LAST_SECONDS` before the last step.
        """
        self.context, self.callbacks, self.on_last_seconds = context, callbacks, on_last_seconds
        rows = context.windows.rows if context.windows else context.train.rows
        self.epoch_steps, self.steps = count_steps(context.settings, rows)
        self.accelerator = make_accelerator(context)
        self.is_main = self.accelerator.is_main_process
        self.sampler = Sampler(context, self.epoch_steps)
        epochs = self.steps / self.epoch_steps
        self.state = TrainingState(context, self.accelerator, self.steps, epochs)
        self.progress = Progress()
        self.validated: tuple[int, list[Prediction]] = (-1, [])  # a step, and predictions after it
        self.checkpoints = context.folder / "checkpoints"
        self.saver = Saver(self.checkpoints, context.folder / "log.jsonl")
        self.log: Any = io.StringIO()
        found = checkpoint.to_resume(self.checkpoints, self.steps) if context.resume else None
        self.accelerators = self.state.accelerators = composition.find(context.for_acceleration(
            self.state.module, self.state.trainable, self.accelerator.num_processes, callbacks,
            found.state["training"]["accelerators"] if found else None,
        ))
        self.accumulation = Accumulation(context, self.accelerator, self.state.scaler,
                                         self.accelerators)
        if found:
            self.restore(found)
        if self.is_main:
            self.log = open_log(context.folder / "log.jsonl", self.progress.step)
        self.saved = self.begun = time.monotonic()
        self.stop = StopRequest()

    def run(self) -> Outcome:
        """Train all remaining steps, and load the weights of the result into the model."""
        self.callbacks.on_progress_start("training", self.steps)
        self.callbacks.on_progress(self.progress.step)
        with handle_stop_signals(self.stop):
            while self.progress.step < self.steps and not self.progress.stopped:
                self.train_step()
                self.tell_last_seconds()
                is_validated = is_validation_step(
                    self.context.settings, self.progress.step, self.epoch_steps, self.steps)
                best_scores = self.validate() if is_validated else None
                must_stop, is_due = self.stop_or_save(is_validated)
                if self.context.checkpoints:
                    self.save(best_scores, resumable=must_stop or is_due)
                if must_stop:
                    self.saver.wait()
                    raise self.stop_error()
        return self.outcome()

    def train_step(self) -> None:
        """Run and log one training step."""
        begun, step = time.monotonic(), self.progress.step
        rows = self.sampler.rows(step)
        if self.state.starts_phase(step):
            self.saver.wait_until_read()
        if self.state.start_step(step):
            self.progress.waited = 0
        result = self.forward_backward(step, self.sampler.examples(rows))
        if not math.isfinite(sum(result.losses.values())):
            raise self.non_finite_error(step, rows, result)
        self.saver.wait_until_read()
        lr, grad_norm = self.state.lr(), self.state.optimizer_step(step)
        progress = self.progress
        progress.step = step + 1
        progress.learning += time.monotonic() - begun
        progress.tokens += result.tokens
        progress.padded += result.padded_tokens
        padding = round(1 - result.tokens / max(1, result.padded_tokens), 4)
        self.record({
            "step": step + 1, "epoch": round((step + 1) / self.epoch_steps, 4), **result.losses,
            "lr": lr, "grad_norm": grad_norm, "rows": len(rows), "tokens": result.tokens,
            "padded_tokens": result.padded_tokens, "padding": padding,
            "micro_batches": result.micro_batches,
        })
        self.callbacks.on_progress(1, loss=sum(result.losses.values()))

    def tell_last_seconds(self) -> None:
        """Call `on_last_seconds` when the remaining steps take no longer than that."""
        steps = self.progress.step
        seconds_left = (self.steps - steps) * self.progress.learning / steps
        if self.on_last_seconds and self.is_main and seconds_left < LAST_SECONDS:
            self.on_last_seconds()
            self.on_last_seconds = None

    def forward_backward(self, step: int, examples: list[int]) -> StepResult:
        """Run the forward and backward passes of a step; its gradient is then in the parameters."""
        optimizer, epoch = self.state.optimizer.optimizer, step // self.epoch_steps
        return self.accumulation.compute(self.state.model, optimizer, step, epoch, examples)

    def validate(self) -> dict[str, float] | None:
        """Score the validation rows; return the scores if these weights are the best so far."""
        context, progress = self.context, self.progress
        with self.accelerators.full_weights():
            found = Predictor(
                self.state.module, context.task, context.base, context.compute.uniform,
                context.compute.evaluation, self.accelerator, batch_context=lambda items, batch:
                self.accelerators.batch(BatchRows("validation", items, batch)),
            ).validate(context.validation_rows, context.validation)
        self.validated = progress.step, found.predictions
        rows = list(BatchedRows(context.validation_rows))
        scores = metrics.score(context.task, found.predictions, rows, context.base)
        metric = metrics.deciding(context.task, context.base)
        sign = 1.0 if metric.higher_is_better else -1.0
        # A tie goes to the lower loss.
        rank = [sign * scores[metric.name], -sum(found.losses.values())]
        is_better = progress.best is None or rank > progress.best
        if is_better:
            progress.best, progress.best_step, progress.waited = rank, progress.step, 0
        else:
            progress.waited += 1
            # Only the last phase may end early: an earlier one has not trained all that shall be
            # trained.
            progress.stopped = (0 < (context.settings.early_stopping_patience or 0) <= progress.waited
                                and self.state.phases.is_last(self.state.phase))
        values = {**found.losses, **scores}
        record = {
            "step": progress.step, "epoch": round(progress.step / self.epoch_steps, 4),
            "split": "validation",
            **{f"validation_{name}": value for name, value in values.items()}, "best": is_better,
            "tokens_per_second": self.progress.throughput(self.epoch_steps)["tokens_per_second"],
        }
        self.record(record)
        self.callbacks.on_evaluate(record, is_better)
        return scores if is_better else None

    def save(self, best_scores: Mapping[str, float] | None = None, *,
             resumable: bool = True) -> None:
        """Start to write what has to be kept of this step.

        Args:
            best_scores: scores of these weights, if they are the best.
            resumable: write a checkpoint to resume from, too.
        """
        progress, context = self.progress, self.context
        is_best = best_scores is not None and context.settings.keep != "last"
        has_ended = progress.stopped or progress.step >= self.steps
        # The best weights of the last step are in memory; `outcome` needs no file of them.
        if not resumable and (has_ended or not is_best):
            return
        if not self.is_main:
            tensors = self.state.tensors()
            sharding.join_gather(tensors if resumable else {"model": tensors["model"]})
            return
        with self.accelerators.full_weights():
            tensors = self.state.tensors()
            checkpoints = {}
            if is_best:
                # Written first: a run resumed from the other checkpoint needs its best weights.
                checkpoints[checkpoint.best_name(progress.step)] = Checkpoint(
                    {"model": tensors["model"]}, {"step": progress.step, "scores": best_scores})
            if resumable:
                checkpoints[f"step-{progress.step:09d}"] = Checkpoint(tensors, self.resume_state())
            self.log.flush()
            self.saver.save(checkpoints)

    def resume_state(self) -> dict[str, Any]:
        """Return the JSON of a checkpoint to resume from, and note the time of it."""
        self.saved = time.monotonic()
        seconds = self.progress.seconds + time.monotonic() - self.begun
        return {
            "progress": {**vars(self.progress), "seconds": seconds},
            "training": self.state.state(), "limit": self.accumulation.batcher.limit,
            "compute": self.context.compute.as_dict(), "steps": self.steps,
            "stream": self.context.windows and self.context.windows.position(),
        }

    def restore(self, found: Checkpoint) -> None:
        """Restore model, optimizer, stream and progress."""
        if found.state["compute"]["recompute"] and not self.context.compute.recompute:
            self.recompute()
        self.state.restore(found.tensors, found.state["training"])
        self.accumulation.batcher.limit = found.state["limit"]
        if self.context.windows is not None:
            self.context.windows.stream.restore(found.state["stream"])
        self.progress = Progress(**found.state["progress"])

    def recompute(self) -> None:
        """Recompute activations in the backward pass from the start."""
        is_supported = self.accumulation.recompute(self.state.module)
        if not is_supported and self.context.settings.gradient_checkpointing == "on":
            kind = self.context.base.config.model_type
            raise processes.collective_error(TrainingError(
                f"train.gradient_checkpointing=on: '{kind}' models do not support it.",
                hint="Leave train.gradient_checkpointing at auto."))

    def stop_or_save(self, is_validated: bool) -> tuple[bool, bool]:
        """Return whether to stop on a signal, and whether a checkpoint is due.

        Processes agree after every step: one that stops alone would leave the others waiting.
        """
        seconds = 60 * self.context.settings.save_minutes
        if is_validated:
            seconds = min(seconds, VALIDATED_SECONDS)
        is_due = self.is_main and time.monotonic() - self.saved > seconds
        must_stop, is_due = processes.any_process(self.stop.is_set(), is_due)
        return must_stop and self.progress.step < self.steps, is_due

    def record(self, line: dict[str, Any]) -> None:
        """Write a line of `log.jsonl`, and send it to the tracker."""
        if self.is_main:
            self.log.write(json.dumps(line) + "\n")
            if "split" in line:
                self.log.flush()
        if self.context.settings.report_to:
            numbers = {
                name: value
                for name, value in line.items() if isinstance(value, int | float)
            }
            self.accelerator.log(numbers, step=line["step"])

    def outcome(self) -> Outcome:
        """Free training memory, load the weights of the result, and return how the run went."""
        keeps_best = self.context.settings.keep != "last"
        step, report = self.progress.step, self.accelerators.report()
        self.saver.wait()
        self.state.end_phase()
        self.accelerators.release()
        kept = self.progress.best_step if keeps_best else step
        if kept != step:
            self.state.load_weights(checkpoint.find_best(self.checkpoints, kept))
        return Outcome(self.state.module, step, step / self.epoch_steps, kept,
                       self.progress.seconds + time.monotonic() - self.begun,
                       self.state.num_trainable, self.state.trainable, self.state.plan,
                       self.progress.stopped, report, self.progress.throughput(self.epoch_steps),
                       self.validated[1] if self.validated[0] == kept == step else None)

    def close(self) -> None:
        """Close files and trackers in any case; finishes a checkpoint that is being written."""
        self.accelerators.release()
        self.saver.close()
        self.log.close()
        self.callbacks.on_progress_end()
        if self.context.settings.report_to:
            self.accelerator.end_training()

    def stop_error(self) -> BaseException:
        """Return the error of a run that was stopped by a signal."""
        error = TrainingError(
            f"stopped after step {self.progress.step} of {self.steps}; everything up to there is "
            "saved.",
            hint=f"Go on with: hubtune train --resume {shlex.quote(str(self.context.folder))}",
        )
        error.exit_code = 128 + self.stop.number
        return processes.collective_error(error)

    def non_finite_error(self, step: int, rows: Any, result: StepResult) -> BaseException:
        """Return the error of a loss that is not finite."""
        found = sorted(self.context.train.first + int(row) for row in rows)
        if self.context.row_numbers is not None:
            found = [int(self.context.row_numbers[row]) for row in found]
        return processes.collective_error(NonFiniteLoss(
            f"the loss of step {step} is {sum(result.losses.values())}; its rows: "
            f"{row_numbers(found)} of train.",
            hint="Try a lower train.learning_rate, or train.precision=fp32. The last good state: "
            f"hubtune train --resume {shlex.quote(str(self.context.folder))}",
        ))
