"""Training state: model, optimizer, phase and loss scaler, as a checkpoint holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast

from hubtune.acceleration.interface import Accelerators
from hubtune.contract import Batch, Plan, StepStrategy
from hubtune.contract.validation import checked
from hubtune.devices import fp64, processes, sharding
from hubtune.errors import ResumeError, TrainingError
from hubtune.evaluation.batches import make_batch
from hubtune.training import checkpoint, fsdp, optimizers
from hubtune.training.context import TrainingContext
from hubtune.training.schedule import Phases

if TYPE_CHECKING:
    from torch.nn import Module


def first_batches(context: TrainingContext, rows: int = 64) -> Iterator[Batch]:
    """Yield the first training rows in batches of 32, for initialization from data."""
    for start in range(0, min(rows, len(context.train.examples)), 32):
        end = min(start + 32, rows, len(context.train.examples))
        examples = [context.train.examples[index] for index in range(start, end)]
        yield make_batch(context.model, context.task, examples, context.base)


def prepare_module(context: TrainingContext, plan: Plan) -> Module:
    """Prepare the model with the strategy; weights that it adds depend on the seed alone."""
    torch.manual_seed(context.settings.seed % 2**63)
    strategy = context.strategy
    module = strategy.prepare(context.model, context.newly_initialized, context.task, plan)
    module = checked(strategy, "prepare", module)
    return fp64.convert_model(module) if context.compute.precision == "fp64" else module


class TrainingState:
    """Model and optimizer, from phase to phase.

    Attributes:
        module: prepared by the strategy.
        model: wrapped by Accelerate for the phase.
        accelerators: set by the loop.
    """

    def __init__(self, context: TrainingContext, accelerator: Accelerator, steps: int,
                 epochs: float) -> None:
        self.context, self.accelerator, self.steps = context, accelerator, steps
        batches = partial(first_batches, context)
        self.plan = Plan(steps, epochs, context.settings.batch_size or 0, batches)
        self.module = prepare_module(context, self.plan)
        self.phases = Phases(context.strategy, self.module, context.settings, steps)
        parameters = dict(self.module.named_parameters())
        self.num_trainable = sum(parameters[name].numel() for name in self.trainable)
        if not self.num_trainable:
            raise processes.collective_error(TrainingError(
                f"the strategy '{context.strategy.name}' leaves nothing to train in this model."))
        total = sum(parameter.numel() for parameter in parameters.values())
        checkpoint.refuse_full_disk(context.folder, total, self.num_trainable)
        self.frozen_norms = [part for name, part in self.module.named_modules()
                             if self.keeps_statistics(name, part)]
        is_fp16 = context.compute.precision == "fp16"
        self.scaler = torch.amp.GradScaler(context.compute.device, enabled=is_fp16)
        self.accelerators = Accelerators()
        self.phase = -1
        self.optimizer: Any = None
        if context.shard:
            fsdp.shard_module(context, self.module, self.frozen_norms,
                              lambda: self.phases.find_trainable(self.module))

    @property
    def trainable(self) -> frozenset[str]:
        """Names of the parameters that are trained in any phase; checkpoints hold these."""
        return self.phases.trainable

    def keeps_statistics(self, name: str, part: Module) -> bool:
        """Tell whether a batch norm's statistics are frozen, which protects pretrained ones."""
        follows_data = self.context.settings.batch_norm == "train"
        if follows_data or not isinstance(part, sharding.BATCH_NORMS):
            return False
        return not any(fresh.startswith(f"{name}.") for fresh in self.context.newly_initialized)

    def starts_phase(self, step: int) -> bool:
        """Tell whether a phase starts with this step."""
        return self.phases.phase_at(step) != self.phase

    def start_step(self, step: int) -> bool:
        """Set phase, learning rate and training mode of a step; return True if a phase started."""
        has_begun = self.starts_phase(step)
        if has_begun:
            self.start_phase(self.phases.phase_at(step))
        self.train_mode()
        factor = self.phases.rate(step)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"] * group.get("rate", 1.0))
            group["lr"] = group["initial_lr"] * factor
        return has_begun

    def start_phase(self, index: int) -> None:
        """Start a phase: trainable parameters, a new optimizer, and the wrapped model."""
        context = self.context
        self.end_phase()
        context.strategy.start_phase(self.module, self.phases.each[index])
        strategy, settings = context.strategy, context.settings
        groups = strategy.param_groups(self.module, settings.weight_decay or 0.0)
        groups = checked(strategy, "param_groups", groups)
        optimizer = optimizers.make_optimizer(
            settings.optimizer, strategy, groups, settings.learning_rate or 0.0)
        if context.shard and sharding.has_foreign_parameters(self.module, optimizer):
            raise processes.collective_error(TrainingError(
                f"the strategy '{context.strategy.name}' keeps references to unsharded weights.",
                hint="Train with whole weights in each process: --set train.fsdp=off"))
        self.model = self.module if context.shard else self.accelerator.prepare(self.module)
        self.optimizer = self.accelerator.prepare(optimizer)
        self.phase = index

    def end_phase(self) -> None:
        """Free the optimizer's state and the wrapped model, which Accelerate would keep."""
        if self.phase >= 0:
            self.optimizer.optimizer.state.clear()
            if self.accelerator.num_processes > 1:
                del self.model
                self.accelerator.free_memory()
        self.phase = -1

    def train_mode(self) -> None:
        """Set training mode, except for frozen batch norms."""
        self.model.train()
        for part in self.frozen_norms:
            part.eval()

    def lr(self) -> float:
        """Return the learning rate of the first parameter group."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def optimizer_step(self, step: int) -> float:
        """Run one optimizer step; return the gradient norm before clipping."""
        context = self.context
        self.scaler.unscale_(self.optimizer.optimizer)
        parameters = [
            parameter for parameter in self.module.parameters() if parameter.requires_grad
        ]
        most = context.settings.max_grad_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(parameters, most)
        self.scaler.step(self.optimizer.optimizer)
        self.scaler.update()
        self.accelerators.after_step(self.optimizer)
        if self.accelerator.num_processes > 1 and not context.shard:
            # Statistics are those of the first process' rows.
            broadcast(list(self.module.buffers()))
        if isinstance(context.strategy, StepStrategy):
            context.strategy.after_step(self.module, step, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        return float(sharding.full_tensor(norm))

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the tensors of a checkpoint, by group.

        Call inside `accelerators.full_weights()`.
        """
        return {
            "model": checkpoint.trained_tensors(self.module, self.trainable),
            "optimizer": checkpoint.optimizer_state(self.optimizer.optimizer)[0],
            "accelerators": self.accelerators.state()[0],
        }

    def state(self) -> dict[str, Any]:
        """Return the JSON of a checkpoint."""
        return {
            "strategy": checked(self.context.strategy, "state", self.context.strategy.state()),
            "optimizer": checkpoint.optimizer_state(self.optimizer.optimizer)[1],
            "scaler": self.scaler.state_dict(), "phase": self.phase,
            "accelerators": self.accelerators.state()[1],
        }

    def restore(self, tensors: Mapping[str, Mapping[str, torch.Tensor]],
                state: Mapping[str, Any]) -> None:
        """Restore from a checkpoint."""
        # The next step starts another one where this step was its last.
        self.start_phase(state["phase"])
        self.accelerators.restore(state["accelerators"])
        with self.accelerators.full_weights():
            checkpoint.restore_tensors(self.module, tensors["model"], self.trainable)
        checkpoint.restore_optimizer(self.optimizer.optimizer, tensors["optimizer"],
                                     state["optimizer"])
        self.accelerators.adapt_optimizer(self.optimizer.optimizer, tensors["accelerators"])
        self.scaler.load_state_dict(state["scaler"])
        self.context.strategy.restore(state["strategy"])

    def load_weights(self, best: Path) -> None:
        """Load the weights of a checkpoint, as the result of the run."""
        found = processes.broadcast(checkpoint.read(best) if processes.is_first() else None)
        if found is None:
            raise ResumeError("the best weights cannot be read back.",
                              hint="Train again with --overwrite.")
        checkpoint.restore_tensors(self.module, found.tensors["model"], self.trainable)


def make_accelerator(context: TrainingContext) -> Accelerator:
    """Create the Accelerator of the device, with the tracker of the recipe."""
    settings = context.settings
    # Buffers are sent after a step (`TrainingState.optimizer_step`): in a forward pass processes
    # would wait for one that is
    # out of memory. A launcher's half precision and compilation would stay on the model, in
    # evaluation too.
    plain = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(
        cpu=context.compute.device == "cpu", mixed_precision="no", dynamo_backend="no",
        kwargs_handlers=[plain], log_with=settings.report_to, project_dir=str(context.folder))
    if settings.report_to:
        config = {name: value if isinstance(value, int | float | str) else str(value)
                  for name, value in vars(settings).items() if value is not None}
        accelerator.init_trackers("hubtune", config=config)  # trackers take no lists
    return accelerator
