"""What learns: the module as a strategy made it, its optimizer, and one step of both. Everything that a checkpoint holds of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast

from hubtune.acceleration import block_compilation, embedding_pruning, feature_cache, padding_free
from hubtune.acceleration.row_axes import RowDropout
from hubtune.callbacks import Callbacks
from hubtune.contract import Batch, Plan
from hubtune.data.batching import computed_tokens, micro_batches
from hubtune.devices import fp64, processes, sharding
from hubtune.devices.device import Compute
from hubtune.errors import ResumeError, TrainingError
from hubtune.evaluation import inference
from hubtune.evaluation.model_checks import out_of_memory
from hubtune.training import checkpoint, fsdp, optimizers
from hubtune.training.accumulation import Gradient, recompute
from hubtune.training.context import TrainingContext
from hubtune.training.schedule import boundaries, rate

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.nn import Module


@dataclass(frozen=True)
class Learnt:
    """What one step computed. losses: the mean of every term; padded: tokens with the padding that was computed."""

    losses: dict[str, float]
    lr: float
    tokens: int
    padded: int
    micro_batches: int


def first_batches(context: TrainingContext, rows: int = 64) -> Iterator[Batch]:
    """The first training rows in batches of at most 32, for methods that look at data before the first step."""
    for start in range(0, min(rows, len(context.train.examples)), 32):
        examples = [context.train.examples[i] for i in range(start, min(start + 32, rows, len(context.train.examples)))]
        yield inference.batch_for(context.model, context.task, examples, context.base)


def prepared(context: TrainingContext, plan: Plan) -> Module:
    """The model as the strategy makes it, the same at every call: what it adds starts from the seed, too."""
    torch.manual_seed(context.settings.seed % 2**63)
    module = context.strategy.prepare(context.model, context.newly_initialized, context.task, plan)
    return fp64.model(module) if context.compute.precision == "fp64" else module


class TrainingState:
    """The module and its optimizer, from phase to phase."""

    def __init__(self, context: TrainingContext, accelerator: Accelerator, steps: int, epochs: float) -> None:
        self.context, self.accelerator, self.steps = context, accelerator, steps
        self.plan = Plan(steps, epochs, context.settings.batch_size or 0, partial(first_batches, context))
        self.module = prepared(context, self.plan)
        self.phases = context.strategy.phases()
        self.ends = boundaries([phase.share for phase in self.phases], steps)
        self.learning = self.all_that_learns()
        self.learned = frozenset().union(*self.learning)
        parameters = dict(self.module.named_parameters())
        self.trainable = sum(parameters[name].numel() for name in self.learned)
        if not self.trainable:
            raise processes.once(TrainingError(f"the strategy '{context.strategy.name}' leaves nothing to train in this model."))
        checkpoint.refuse_full_disk(context.folder, sum(p.numel() for p in parameters.values()), self.trainable)
        self.features = feature_cache.Nothing("nobody asked")
        self.padding_free: padding_free.Padded | None = None
        self.compiled: block_compilation.Compiled | None = None
        self.statistics = [part for name, part in self.module.named_modules() if self.keeps_statistics(name, part)]
        self.scaler = torch.amp.GradScaler(context.compute.device, enabled=context.compute.precision == "fp16")
        self.dropout = RowDropout()
        self.take(context.compute)
        self.vocabularies = embedding_pruning.Vocabularies()
        if accelerator.num_processes == 1 and context.settings.kernels == "auto" and context.settings.optimizer == "adamw" and context.windows is None:
            self.vocabularies = embedding_pruning.find(self.module, context.strategy, context.task, context.base, self.learned, context.train)
        self.had_features: bool | None = None
        self.phase = -1
        self.optimizer: Any = None
        if context.shard:
            fsdp.share_out(context, self.module, self.statistics, self.all_that_learns)

    def compute_once(self, callbacks: Callbacks) -> None:
        """Have the outputs of a backbone that stays as it is; after `restore`, which tells whether the run began so."""
        count = self.accelerator.num_processes
        self.features = feature_cache.find(self.context, self.module, self.learned, count, callbacks, self.had_features)
        if self.had_features and not self.features.cached:
            raise processes.once(ResumeError(f"the run began with features computed once, and now: {self.features.reason}.",
                                          hint="Its backbone had no dropout. Train anew with --overwrite."))
        self.gradient.known = self.features.train

    @contextlib.contextmanager
    def blocks(self) -> Iterator[None]:
        """For a step, its backward pass too: the model's blocks as they were chosen to compute."""
        with contextlib.ExitStack() as stack:
            for ways in (self.padding_free, self.compiled):
                if ways is not None:
                    stack.enter_context(ways.computing())
            yield

    def as_it_was(self) -> None:
        """The blocks, too, as whoever loads the model meets them."""
        for ways in (self.padding_free, self.compiled):
            if ways is not None:
                ways.release()

    def all_that_learns(self) -> list[frozenset[str]]:
        """Names of the parameters that learn in each phase; checkpoints hold those of any."""
        found = []
        for phase in self.phases:
            self.context.strategy.start_phase(self.module, phase)
            found.append(frozenset(name for name, parameter in self.module.named_parameters() if parameter.requires_grad))
        return found

    def keeps_statistics(self, name: str, part: Module) -> bool:
        """Whether a batch norm's running statistics are pretrained: a few small batches would overwrite them."""
        if self.context.settings.batch_norm == "train" or not isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            return False
        return not any(parameter.startswith(f"{name}.") for parameter in self.context.newly_initialized)

    def enter(self, index: int) -> None:
        """Begin a phase: what learns, its optimizer, and the model as devices wrap it."""
        context = self.context
        self.leave()
        context.strategy.start_phase(self.module, self.phases[index])
        groups = context.strategy.param_groups(self.module, context.settings.weight_decay or 0.0)
        optimizer = optimizers.made(context.settings.optimizer, context.strategy, groups, context.settings.learning_rate or 0.0)
        if context.shard and sharding.strangers(self.module, optimizer):
            raise processes.once(TrainingError(f"the strategy '{context.strategy.name}' holds on to weights from before they were shared out.",
                                            hint="Let each process hold all of them: --set train.fsdp=off"))
        self.model = self.module if context.shard else self.accelerator.prepare(self.module)
        self.optimizer = self.accelerator.prepare(optimizer)
        self.phase = index
        if context.compute.padding < 1 and self.padding_free is None:  # tried where it will compute
            with self.vocabularies.whole():
                self.padding_free = padding_free.find(context, self.module)
            if context.settings.plan and not self.padding_free.used:
                raise processes.once(TrainingError(f"train.plan={context.settings.plan}: it has blocks without padding, and here: {self.padding_free.reason}.",
                                                hint="Measure a plan here: leave train.plan out."))

    def leave(self) -> None:
        """Be in no phase: the optimizer's memory is let go, and what devices wrapped; Accelerate would keep both."""
        if self.phase >= 0:
            self.optimizer.optimizer.state.clear()
            if self.accelerator.num_processes > 1:
                del self.model
                self.accelerator.free_memory()
        self.phase = -1

    def begin(self, step: int) -> bool:
        """Be in the phase of a step, at its learning rate; whether a phase has begun."""
        phase = next(index for index, end in enumerate(self.ends) if step < end)
        entered = phase != self.phase
        if entered:
            self.enter(phase)
        self.train_mode()
        start, end = (0, *self.ends)[phase], self.ends[phase]
        factor = self.phases[phase].rate * rate(self.context.settings, step - start, end - start)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"] * group.get("rate", 1.0))
            group["lr"] = group["initial_lr"] * factor
        return entered

    def train_mode(self) -> None:
        """With dropout; what keeps its statistics as if it only answered."""
        self.model.train()
        for part in self.statistics:
            part.eval()

    def take(self, compute: Compute) -> None:
        """Compute so from now on."""
        self.context.compute, self.limit = compute, compute.limit
        if compute.recompute and not recompute(self.module) and self.context.settings.gradient_checkpointing == "on":
            raise processes.once(TrainingError(
                f"train.gradient_checkpointing=on: '{self.context.base.config.model_type}' models do not support it.",
                hint="Leave train.gradient_checkpointing at auto.",
            ))
        if compute.compiled and not self.compiled:
            self.compiled = block_compilation.Compiled(self.module)
        elif self.compiled and not compute.compiled:
            self.compiled.release()
            self.compiled = None
        self.gradient = Gradient(self.context, self.accelerator, self.scaler, self.dropout)
        self.gradient.known, self.gradient.blocks = self.features.train, self.blocks

    def learn(self, step: int, epoch: int, items: Sequence[int]) -> Learnt:
        """Forward and backward over every micro-batch of a step; `move` is next.

        items: the examples of the step. Where memory does not suffice, or a token comes up that no text had, the step
        begins again from its start: it is a function of its number, and the weights have not moved.
        """
        while True:
            cuts = self.cuts(items)
            try:
                losses = self.gradient.of_step(self.model, step, epoch, cuts)
                break
            except embedding_pruning.Unmet:
                self.vocabularies.release(self.optimizer.optimizer)
            except Exception as error:
                if not out_of_memory(error) or self.context.shard:
                    raise
                self.reduce(cuts, error)
            self.optimizer.zero_grad(set_to_none=True)
        return Learnt(losses, self.optimizer.param_groups[0]["lr"], self.tokens(items), sum(map(self.places, cuts)), len(cuts))

    def cuts(self, items: Sequence[int]) -> list[list[int]]:
        """The step's micro-batches."""
        compute = self.context.compute
        return micro_batches(items, [int(self.context.train.sizes[item]) for item in items], compute.overhead, self.limit, compute.uniform, compute.padding)

    def tokens(self, items: Sequence[int]) -> int:
        """Tokens of examples, without padding."""
        return int(sum(self.context.train.sizes[item] for item in items))

    def places(self, items: Sequence[int]) -> int:
        """What a micro-batch computes, in tokens: with its padding, as far as that costs something."""
        longest = max(int(self.context.train.sizes[item]) for item in items)
        return math.ceil(computed_tokens(self.tokens(items), len(items) * longest, self.context.compute.padding))

    def reduce(self, cuts: list[list[int]], error: Exception) -> None:
        """Half as many tokens in a micro-batch from now on; where it holds one example, activations that are computed again."""
        if max(len(part) for part in cuts) == 1:
            if self.context.may_recompute and recompute(self.module):
                self.take(replace(self.context.compute, recompute=True, limit=self.limit))
                return
            raise TrainingError(
                f"the memory does not suffice for one example of {max(map(self.places, cuts))} {self.context.task.unit}.",
                hint="Cut the texts with --set train.max_length=N, or train fewer weights: --strategy lora",
            ) from error
        self.limit = max(1, max(self.places(part) for part in cuts if len(part) > 1) // 2)

    def move(self, step: int) -> float:
        """One step of the optimizer; returns the norm of the gradient before it was clipped."""
        context = self.context
        self.scaler.unscale_(self.optimizer.optimizer)
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        norm = float(sharding.whole(torch.nn.utils.clip_grad_norm_(trained, context.settings.max_grad_norm or float("inf"))))
        self.scaler.step(self.optimizer.optimizer)
        self.scaler.update()
        self.vocabularies.stepped(self.optimizer)
        if self.accelerator.num_processes > 1 and not context.shard:
            broadcast(list(self.module.buffers()))  # statistics are those of what the first process saw
        context.strategy.after_step(self.module, step, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def moving(self) -> dict[str, torch.Tensor]:
        """What training changes, with every table whole: to be used inside `vocabularies.whole()`."""
        return checkpoint.moving(self.module, self.learned)

    def state(self) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
        """Tensors by group, and JSON; inside `vocabularies.whole()`."""
        tensors, plain = checkpoint.optimizer_state(self.optimizer.optimizer)
        return {"model": self.moving(), "optimizer": tensors, "vocabularies": self.vocabularies.ids()}, {
            "strategy": self.context.strategy.state(), "optimizer": plain, "scaler": self.scaler.state_dict(),
            "phase": self.phase, "limit": self.limit, "vocabularies": self.vocabularies.state(),
            "features": self.features.cached, "recompute": self.context.compute.recompute,
        }

    def restore(self, tensors: Mapping[str, Mapping[str, torch.Tensor]], state: Mapping[str, Any]) -> None:
        """Be as `state` said."""
        self.enter(state["phase"])  # the next step enters another one where this was its last
        self.vocabularies.restore(state["vocabularies"])
        with self.vocabularies.whole():
            checkpoint.put_back(self.module, tensors["model"], self.learned)
        checkpoint.restore_optimizer(self.optimizer.optimizer, tensors["optimizer"], state["optimizer"])
        if not self.vocabularies.found:
            embedding_pruning.widen(self.optimizer.optimizer, tensors["vocabularies"].values())
        self.scaler.load_state_dict(state["scaler"])
        self.context.strategy.restore(state["strategy"])
        if state["recompute"] and not self.context.compute.recompute:
            self.take(replace(self.context.compute, recompute=True))
        self.limit = state["limit"]
        self.had_features = state.get("features", False)

    def finish(self, best: Path | None) -> None:
        """Be the result: the weights in a checkpoint, or as they are."""
        self.vocabularies.release()
        self.as_it_was()
        if best is None:
            return
        found = processes.together(checkpoint.read(best) if processes.is_first() else None)
        if found is None:
            raise ResumeError("the best weights cannot be read back.", hint="Train anew with --overwrite.")
        checkpoint.put_back(self.module, found.tensors["model"], self.learned)
