"""Training state: model, optimizer, phase and loss scaler. A step number and this are all that a checkpoint holds of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast

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
    from accelerate import Accelerator
    from torch.nn import Module


def first_batches(context: TrainingContext, rows: int = 64) -> Iterator[Batch]:
    """The first training rows in batches of at most 32, for methods that look at data before the first step."""
    for start in range(0, min(rows, len(context.train.examples)), 32):
        examples = [context.train.examples[i] for i in range(start, min(start + 32, rows, len(context.train.examples)))]
        yield make_batch(context.model, context.task, examples, context.base)


def prepare_module(context: TrainingContext, plan: Plan) -> Module:
    """The model as the strategy makes it, the same at every call: weights that it adds are drawn from the seed."""
    torch.manual_seed(context.settings.seed % 2**63)
    module = checked(context.strategy, "prepare", context.strategy.prepare(context.model, context.newly_initialized, context.task, plan))
    return fp64.convert_model(module) if context.compute.precision == "fp64" else module


class TrainingState:
    """Model and optimizer, from phase to phase.

    module: as the strategy made it; model: as Accelerate wrapped it for the phase. accelerators: set by the loop.
    """

    def __init__(self, context: TrainingContext, accelerator: Accelerator, steps: int, epochs: float) -> None:
        self.context, self.accelerator, self.steps = context, accelerator, steps
        self.plan = Plan(steps, epochs, context.settings.batch_size or 0, partial(first_batches, context))
        self.module = prepare_module(context, self.plan)
        self.phases = Phases(context.strategy, self.module, context.settings, steps)
        parameters = dict(self.module.named_parameters())
        self.num_trainable = sum(parameters[name].numel() for name in self.trainable)
        if not self.num_trainable:
            raise processes.collective_error(TrainingError(f"the strategy '{context.strategy.name}' leaves nothing to train in this model."))
        checkpoint.refuse_full_disk(context.folder, sum(p.numel() for p in parameters.values()), self.num_trainable)
        self.frozen_norms = [part for name, part in self.module.named_modules() if self.keeps_statistics(name, part)]
        self.scaler = torch.amp.GradScaler(context.compute.device, enabled=context.compute.precision == "fp16")
        self.accelerators = Accelerators()
        self.phase = -1
        self.optimizer: Any = None
        if context.shard:
            fsdp.share_out(context, self.module, self.frozen_norms, lambda: self.phases.find_trainable(self.module))

    @property
    def trainable(self) -> frozenset[str]:
        """Names of the parameters that are trained in any phase; checkpoints hold these."""
        return self.phases.trainable

    def keeps_statistics(self, name: str, part: Module) -> bool:
        """Whether a batch norm's running statistics are pretrained: a few small batches would overwrite them."""
        if self.context.settings.batch_norm == "train" or not isinstance(part, sharding.BATCH_NORMS):
            return False
        return not any(fresh.startswith(f"{name}.") for fresh in self.context.newly_initialized)

    def start_step(self, step: int) -> bool:
        """Enter the phase of a step, with its learning rate and in training mode; returns whether a phase has begun."""
        phase = self.phases.at(step)
        has_begun = phase != self.phase
        if has_begun:
            self.start_phase(phase)
        self.train_mode()
        factor = self.phases.rate(step)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"] * group.get("rate", 1.0))
            group["lr"] = group["initial_lr"] * factor
        return has_begun

    def start_phase(self, index: int) -> None:
        """Begin a phase: its trainable parameters, a new optimizer, and the model wrapped for the devices."""
        context = self.context
        self.end_phase()
        context.strategy.start_phase(self.module, self.phases.each[index])
        groups = checked(context.strategy, "param_groups", context.strategy.param_groups(self.module, context.settings.weight_decay or 0.0))
        optimizer = optimizers.make_optimizer(context.settings.optimizer, context.strategy, groups, context.settings.learning_rate or 0.0)
        if context.shard and sharding.has_foreign_parameters(self.module, optimizer):
            raise processes.collective_error(TrainingError(
                f"the strategy '{context.strategy.name}' holds on to weights from before they were shared out.",
                hint="Let each process hold all of them: --set train.fsdp=off",
            ))
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
        """Training mode, but for batch norms that keep their statistics."""
        self.model.train()
        for part in self.frozen_norms:
            part.eval()

    def lr(self) -> float:
        """The learning rate of the first parameter group."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def optimizer_step(self, step: int) -> float:
        """One step of the optimizer; returns the norm of the gradient before it was clipped."""
        context = self.context
        self.scaler.unscale_(self.optimizer.optimizer)
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(parameters, context.settings.max_grad_norm or float("inf"))
        self.scaler.step(self.optimizer.optimizer)
        self.scaler.update()
        self.accelerators.after_step(self.optimizer)
        if self.accelerator.num_processes > 1 and not context.shard:
            broadcast(list(self.module.buffers()))  # statistics are those of the first process' rows
        if isinstance(context.strategy, StepStrategy):
            context.strategy.after_step(self.module, step, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        return float(sharding.full_tensor(norm))

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """Tensors of a checkpoint, by group. Call inside `accelerators.full_weights()`."""
        return {
            "model": checkpoint.moving(self.module, self.trainable),
            "optimizer": checkpoint.optimizer_state(self.optimizer.optimizer)[0],
            "accelerators": self.accelerators.state()[0],
        }

    def state(self) -> dict[str, Any]:
        """JSON of a checkpoint."""
        return {
            "strategy": checked(self.context.strategy, "state", self.context.strategy.state()), "optimizer": checkpoint.optimizer_state(self.optimizer.optimizer)[1],
            "scaler": self.scaler.state_dict(), "phase": self.phase, "accelerators": self.accelerators.state()[1],
        }

    def restore(self, tensors: Mapping[str, Mapping[str, torch.Tensor]], state: Mapping[str, Any]) -> None:
        """Restore from a checkpoint."""
        self.start_phase(state["phase"])  # the next step starts another one where this step was its last
        self.accelerators.restore(state["accelerators"])
        with self.accelerators.full_weights():
            checkpoint.put_back(self.module, tensors["model"], self.trainable)
        checkpoint.restore_optimizer(self.optimizer.optimizer, tensors["optimizer"], state["optimizer"])
        self.accelerators.adapt_optimizer(self.optimizer.optimizer, tensors["accelerators"])
        self.scaler.load_state_dict(state["scaler"])
        self.context.strategy.restore(state["strategy"])

    def load_weights(self, best: Path) -> None:
        """Load the weights of a checkpoint, as the result of the run."""
        found = processes.broadcast(checkpoint.read(best) if processes.is_first() else None)
        if found is None:
            raise ResumeError("the best weights cannot be read back.", hint="Train anew with --overwrite.")
        checkpoint.put_back(self.module, found.tensors["model"], self.trainable)
