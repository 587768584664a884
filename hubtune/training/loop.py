"""The training loop, over Accelerate: batch, forward, loss, backward, step, validate, save.

It knows no task, no Hub and no command line. The rows of a step follow from (sizes, batch size, sampler, seed, epoch), and what
it computes from (seed, step, rows), so that the state of a run is its weights, its optimizer and a step number.
"""

from __future__ import annotations

import io
import json
import math
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from hubtune.acceleration import composition
from hubtune.acceleration.interface import BatchRows
from hubtune.callbacks import Callbacks
from hubtune.contract import Plan
from hubtune.data.labels import row_numbers
from hubtune.data.row_batches import BatchedRows
from hubtune.devices import processes, sharding
from hubtune.errors import NonFiniteLoss, ResumeError, TrainingError
from hubtune.evaluation import metrics
from hubtune.evaluation.inference import Predictor
from hubtune.record import migrate_checkpoint
from hubtune.training import checkpoint
from hubtune.training.accumulation import Accumulation, StepResult
from hubtune.training.checkpoint import Checkpoint
from hubtune.training.checkpoint_writer import Saver
from hubtune.training.context import TrainingContext
from hubtune.training.log import StopRequest, open_log, stopping
from hubtune.training.schedule import steps_in, validates
from hubtune.training.state import TrainingState
from hubtune.training.steps import Sampler

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass
class Progress:
    """Position of a run, for its checkpoints.

    waited: validations since the best one. seconds: in all; learning: of the steps alone. tokens, padded: of the steps so
    far, without and with padding.
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
    """The trained module, as the strategy made it, and how it was trained."""

    model: Module
    steps: int
    epochs: float
    best_step: int
    seconds: float
    num_trainable: int
    trainable: frozenset[str]
    plan: Plan
    stopped_early: bool
    acceleration: dict[str, dict[str, Any]]
    throughput: dict[str, Any]


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
        self.epoch_steps, self.steps = steps_in(context.settings, context.windows.rows if context.windows else context.train.rows)
        self.accelerator = make_accelerator(context)
        self.is_main = self.accelerator.is_main_process
        self.sampler = Sampler(context, self.epoch_steps)
        self.state = TrainingState(context, self.accelerator, self.steps, self.steps / self.epoch_steps)
        self.progress = Progress()
        self.checkpoints = context.folder / "checkpoints"
        self.saver = Saver(self.checkpoints, context.folder / "log.jsonl")
        self.log: Any = io.StringIO()
        found = self.newest_checkpoint()
        self.accelerators = self.state.accelerators = composition.find(context.for_acceleration(
            self.state.module, self.state.trainable, self.accelerator.num_processes, callbacks,
            found.state["training"]["accelerators"] if found else None,
        ))
        self.accumulation = Accumulation(context, self.accelerator, self.state.scaler, self.accelerators)
        if found:
            self.restore(found)
        if self.is_main:
            self.log = open_log(context.folder / "log.jsonl", self.progress.step)
        self.phase_with_buffers = -1
        self.saved = self.begun = time.monotonic()
        self.stop = StopRequest()

    def run(self) -> Outcome:
        """All steps from here on. Afterwards the weights of the result are in the model."""
        self.callbacks.on_progress_start("training", self.steps)
        self.callbacks.on_progress(self.progress.step)
        with stopping(self.stop):
            while self.progress.step < self.steps and not self.progress.stopped:
                self.one_step()
                is_validated = validates(self.context.settings, self.progress.step, self.epoch_steps, self.steps)
                best_scores = self.validate() if is_validated else None
                must_stop, is_due = self.stop_or_save()
                if is_validated or must_stop or is_due:
                    self.save(best_scores)
                if must_stop:
                    self.saver.wait()
                    raise self.interrupted()
        return self.outcome()

    def one_step(self) -> None:
        """One training step, logged."""
        begun, step = time.monotonic(), self.progress.step
        rows = self.sampler.rows(step)
        if self.state.start_step(step):
            self.progress.waited = 0
        result = self.forward_backward(step, self.sampler.examples(rows))
        if not math.isfinite(sum(result.losses.values())):
            raise self.non_finite(step, rows, result)
        lr, grad_norm = self.state.lr(), self.state.optimizer_step(step)
        self.reserve_buffers()
        progress = self.progress
        progress.step = step + 1
        progress.learning += time.monotonic() - begun
        progress.tokens += result.tokens
        progress.padded += result.padded_tokens
        self.record({
            "step": step + 1, "epoch": round((step + 1) / self.epoch_steps, 4), **result.losses, "lr": lr,
            "grad_norm": grad_norm, "rows": len(rows), "tokens": result.tokens, "padded_tokens": result.padded_tokens,
            "padding": round(1 - result.tokens / max(1, result.padded_tokens), 4), "micro_batches": result.micro_batches,
        })
        self.callbacks.on_progress(1, loss=sum(result.losses.values()))

    def forward_backward(self, step: int, examples: list[int]) -> StepResult:
        """Forward and backward passes of a step; its gradient is then in the parameters."""
        return self.accumulation.compute(self.state.model, self.state.optimizer.optimizer, step, step // self.epoch_steps, examples)

    def validate(self) -> dict[str, float] | None:
        """Score the validation rows; returns the scores if these weights are the best so far."""
        context, progress = self.context, self.progress
        with self.accelerators.full_weights():
            found = Predictor(
                self.state.module, context.task, context.base, context.compute.uniform,
                context.compute.evaluation, self.accelerator, batch_context=lambda items, batch:
                self.accelerators.batch(BatchRows("validation", items, batch)),
            ).validate(context.validation_rows, context.validation)
        rows = list(BatchedRows(context.validation_rows))
        scores = metrics.score(context.task, found.predictions, rows, context.base)
        metric = metrics.deciding(context.task, context.base)
        sign = 1.0 if metric.higher_is_better else -1.0
        rank = [sign * scores[metric.name], -sum(found.losses.values())]  # a tie goes to the lower loss
        is_better = progress.best is None or rank > progress.best
        if is_better:
            progress.best, progress.best_step, progress.waited = rank, progress.step, 0
        else:
            progress.waited += 1
            # Only the last phase may end early: an earlier one has not trained all that shall be trained.
            progress.stopped = (0 < context.settings.early_stopping_patience <= progress.waited
                                and self.state.phases.is_last(self.state.phase))
        record = {
            "step": progress.step, "epoch": round(progress.step / self.epoch_steps, 4), "split": "validation",
            **{f"validation_{name}": value for name, value in {**found.losses, **scores}.items()}, "best": is_better,
            "tokens_per_second": self.throughput()["tokens_per_second"],
        }
        self.record(record)
        self.callbacks.on_evaluate(record, is_better)
        return scores if is_better else None

    def save(self, best_scores: Mapping[str, float] | None = None) -> None:
        """Begin to write a checkpoint; the loop goes on when tensors are copied. best_scores: if its weights are the best."""
        if not self.is_main:
            sharding.join_gather(self.state.tensors())
            return
        self.saved = time.monotonic()
        self.log.flush()
        progress, context = self.progress, self.context
        with self.accelerators.full_weights():
            tensors = self.state.tensors()
            checkpoints = {f"step-{progress.step:09d}": Checkpoint(tensors, {
                "progress": {**vars(progress), "seconds": progress.seconds + time.monotonic() - self.begun},
                "training": self.state.state(), "limit": self.accumulation.cutter.limit, "compute": context.compute.as_dict(),
                "steps": self.steps, "stream": context.windows and context.windows.position(),
            })}
            if best_scores is not None and context.settings.keep == "best":
                # Written first: a run that is resumed from the other finds the weights that it calls the best.
                best = Checkpoint({"model": tensors["model"]}, {"step": progress.step, "scores": best_scores})
                checkpoints = {"best": best, **checkpoints}
            self.saver.save(checkpoints)

    def newest_checkpoint(self) -> Checkpoint | None:
        """The checkpoint that a resumed run goes on from; None for a new run, or where there is none yet."""
        if not self.context.resume:
            return None
        found = processes.broadcast(checkpoint.newest(self.checkpoints) if self.is_main else None)
        if found is not None and found.state["steps"] != self.steps:
            raise processes.collective_error(ResumeError("the checkpoint belongs to a run of another length.", hint="Train anew with --overwrite."))
        if found is not None and "learner" in found.state:  # of hubtune 0.1
            ids = {f"embedding_pruning.{name}": value for name, value in found.tensors.get("vocabularies", {}).items()}
            found = Checkpoint({**found.tensors, "accelerators": ids}, migrate_checkpoint(found.state))
        return found

    def restore(self, found: Checkpoint) -> None:
        """Restore model, optimizer, stream and progress."""
        if found.state["compute"]["recompute"] and not self.context.compute.recompute:
            self.recompute()
        self.state.restore(found.tensors, found.state["training"])
        self.accumulation.cutter.limit = found.state["limit"]
        if self.context.windows is not None:
            self.context.windows.stream.restore(found.state["stream"])
        self.progress = Progress(**found.state["progress"])

    def recompute(self) -> None:
        """Recompute activations in the backward pass from the start."""
        if not self.accumulation.recompute(self.state.module) and self.context.settings.gradient_checkpointing == "on":
            raise processes.collective_error(TrainingError(
                f"train.gradient_checkpointing=on: '{self.context.base.config.model_type}' models do not support it.",
                hint="Leave train.gradient_checkpointing at auto.",
            ))

    def stop_or_save(self) -> tuple[bool, bool]:
        """Whether Ctrl-C or SIGTERM asked to stop, and whether a checkpoint is due by the first process' clock.

        Processes agree after every step: one that stops alone would leave the others waiting.
        """
        is_due = self.is_main and time.monotonic() - self.saved > 60 * self.context.settings.save_minutes
        must_stop, is_due = processes.any_process(self.stop.is_set(), is_due)
        return must_stop and self.progress.step < self.steps, is_due

    def reserve_buffers(self) -> None:
        """Once a phase, when its optimizer has a state: allocate the memory that checkpoints are copied to."""
        if self.is_main and self.phase_with_buffers != self.state.phase:
            self.phase_with_buffers = self.state.phase
            with self.accelerators.full_weights():
                self.saver.reserve(self.state.tensors())

    def record(self, line: dict[str, Any]) -> None:
        """Write a line of `log.jsonl`, and send it to the tracker."""
        if self.is_main:
            self.log.write(json.dumps(line) + "\n")
            if "split" in line:
                self.log.flush()
        if self.context.settings.report_to:
            self.accelerator.log({k: v for k, v in line.items() if isinstance(v, int | float)}, step=line["step"])

    def throughput(self) -> dict[str, Any]:
        """Tokens of the steps so far, and tokens a second. Padding is no work: the rate is without it."""
        progress, seconds = self.progress, max(1e-9, self.progress.learning)
        return {
            "tokens": progress.tokens, "padded_tokens": progress.padded,
            "padding": round(1 - progress.tokens / max(1, progress.padded), 4),
            "tokens_per_second": round(progress.tokens / seconds, 1),
            "seconds_an_epoch": round(seconds / max(1, progress.step) * self.epoch_steps, 3),
        }

    def outcome(self) -> Outcome:
        """Free what only training needs, load the weights of the result, and say how the run went."""
        keeps_best, step, report = self.context.settings.keep == "best", self.progress.step, self.accelerators.report()
        self.saver.free()
        self.state.end_phase()
        self.accelerators.release()
        if keeps_best:
            self.state.load_weights(self.checkpoints / "best")
        return Outcome(
            self.state.module, step, step / self.epoch_steps, self.progress.best_step if keeps_best else step,
            self.progress.seconds + time.monotonic() - self.begun, self.state.num_trainable, self.state.trainable,
            self.state.plan, self.progress.stopped, report, self.throughput(),
        )

    def close(self) -> None:
        """Close files and trackers, whatever happened; a checkpoint that was begun is finished."""
        self.accelerators.release()
        self.saver.close()
        self.log.close()
        self.callbacks.on_progress_end()
        if self.context.settings.report_to:
            self.accelerator.end_training()

    def interrupted(self) -> BaseException:
        """The error of a run that was asked to stop."""
        error = TrainingError(
            f"stopped after step {self.progress.step} of {self.steps}; everything up to there is saved.",
            hint=f"Go on with: hubtune train --resume {shlex.quote(str(self.context.folder))}",
        )
        error.exit_code = 128 + self.stop.number
        return processes.collective_error(error)

    def non_finite(self, step: int, rows: Any, result: StepResult) -> BaseException:
        """The error of a loss that is not finite."""
        found = sorted(self.context.train.first + int(row) for row in rows)
        if self.context.row_numbers is not None:
            found = [int(self.context.row_numbers[row]) for row in found]
        return processes.collective_error(NonFiniteLoss(
            f"the loss of step {step} is {sum(result.losses.values())}; its rows: "
            f"{row_numbers(found)} of train.",
            hint="Try a lower train.learning_rate, or train.precision=fp32. The last good state: "
            f"hubtune train --resume {shlex.quote(str(self.context.folder))}",
        ))


def make_accelerator(context: TrainingContext) -> Accelerator:
    """Accelerate on the chosen device, with the tracker of the recipe."""
    settings = context.settings
    # Buffers are sent after a step (`TrainingState.optimizer_step`): in a forward pass processes would wait for one that is
    # out of memory. A launcher's half precision and compilation would stay on the model, in evaluation too.
    plain = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(
        cpu=context.compute.device == "cpu", mixed_precision="no", dynamo_backend="no", kwargs_handlers=[plain],
        log_with=settings.report_to, project_dir=str(context.folder),
    )
    if settings.report_to:
        accelerator.init_trackers("hubtune", config={k: v for k, v in vars(settings).items() if v is not None})
    return accelerator
