"""What learns: the module as a strategy made it, its optimizer, and one step of both. Everything that a checkpoint holds of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast

from hubtune.acceleration import block_compilation, embedding_pruning, feature_cache, padding_free
from hubtune.callbacks import Watcher
from hubtune.contract import Plan
from hubtune.data.batching import computed_tokens, micro_batches
from hubtune.devices import fp64, processes, sharding
from hubtune.devices.device import Compute
from hubtune.errors import ResumeError, TrainingError
from hubtune.evaluation.model_checks import out_of_memory
from hubtune.training import checkpoint, fsdp, optimizers
from hubtune.training.accumulation import Gradient, recompute
from hubtune.training.context import Work
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


def prepared(work: Work, plan: Plan) -> Module:
    """The model as the strategy makes it, the same at every call: what it adds starts from the seed, too."""
    torch.manual_seed(work.settings.seed % 2**63)
    module = work.strategy.prepare(work.model, work.newly_initialized, work.task, plan)
    return fp64.model(module) if work.compute.precision == "fp64" else module


class Learner:
    """The module and its optimizer, from phase to phase."""

    def __init__(self, work: Work, accelerator: Accelerator, steps: int, epochs: float) -> None:
        self.work, self.accelerator, self.steps = work, accelerator, steps
        self.plan = Plan(steps, epochs, work.settings.batch_size or 0)
        self.module = prepared(work, self.plan)
        self.phases = work.strategy.phases()
        self.ends = boundaries([phase.share for phase in self.phases], steps)
        self.learning = self.all_that_learns()
        self.learned = frozenset().union(*self.learning)
        parameters = dict(self.module.named_parameters())
        self.trainable = sum(parameters[name].numel() for name in self.learned)
        if not self.trainable:
            raise processes.once(TrainingError(f"the strategy '{work.strategy.name}' leaves nothing to train in this model."))
        checkpoint.refuse_full_disk(work.folder, sum(p.numel() for p in parameters.values()), self.trainable)
        self.features = feature_cache.Nothing("nobody asked")
        self.padding_free: padding_free.Padded | None = None
        self.compiled: block_compilation.Compiled | None = None
        self.statistics = [part for name, part in self.module.named_modules() if self.keeps_statistics(name, part)]
        self.scaler = torch.amp.GradScaler(work.compute.device, enabled=work.compute.precision == "fp16")
        self.take(work.compute)
        self.vocabularies = embedding_pruning.Vocabularies()
        if accelerator.num_processes == 1 and work.settings.kernels == "auto" and work.settings.optimizer == "adamw" and work.windows is None:
            self.vocabularies = embedding_pruning.find(self.module, work.strategy, work.task, work.base, self.learned, work.train)
        self.had_features: bool | None = None
        self.phase = -1
        self.optimizer: Any = None
        if work.shard:
            fsdp.share_out(work, self.module, self.statistics, self.all_that_learns)

    def compute_once(self, watcher: Watcher) -> None:
        """Have the outputs of a backbone that stays as it is; after `restore`, which tells whether the run began so."""
        count = self.accelerator.num_processes
        self.features = feature_cache.find(self.work, self.module, self.learned, count, watcher, self.had_features)
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
            self.work.strategy.start_phase(self.module, phase)
            found.append(frozenset(name for name, parameter in self.module.named_parameters() if parameter.requires_grad))
        return found

    def keeps_statistics(self, name: str, part: Module) -> bool:
        """Whether a batch norm's running statistics are pretrained: a few small batches would overwrite them."""
        if self.work.settings.batch_norm == "train" or not isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            return False
        return not any(parameter.startswith(f"{name}.") for parameter in self.work.newly_initialized)

    def enter(self, index: int) -> None:
        """Begin a phase: what learns, its optimizer, and the model as devices wrap it."""
        work = self.work
        self.leave()
        work.strategy.start_phase(self.module, self.phases[index])
        groups = work.strategy.param_groups(self.module, work.settings.weight_decay or 0.0)
        optimizer = optimizers.made(work.settings.optimizer, work.strategy, groups, work.settings.lr or 0.0)
        if work.shard and sharding.strangers(self.module, optimizer):
            raise processes.once(TrainingError(f"the strategy '{work.strategy.name}' holds on to weights from before they were shared out.",
                                            hint="Let each process hold all of them: --set train.shard=none"))
        self.model = self.module if work.shard else self.accelerator.prepare(self.module)
        self.optimizer = self.accelerator.prepare(optimizer)
        self.phase = index
        if work.compute.padding < 1 and self.padding_free is None:  # tried where it will compute
            with self.vocabularies.whole():
                self.padding_free = padding_free.find(work, self.module)
            if work.settings.plan and not self.padding_free.used:
                raise processes.once(TrainingError(f"train.plan={work.settings.plan}: it has blocks without padding, and here: {self.padding_free.reason}.",
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
        factor = self.phases[phase].rate * rate(self.work.settings, step - start, end - start)
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
        self.work.compute, self.limit = compute, compute.limit
        if compute.recompute:
            recompute(self.module)
        if compute.compiled and not self.compiled:
            self.compiled = block_compilation.Compiled(self.module)
        elif self.compiled and not compute.compiled:
            self.compiled.release()
            self.compiled = None
        self.gradient = Gradient(self.work, self.accelerator, self.scaler)
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
                if not out_of_memory(error) or self.work.shard:
                    raise
                self.reduce(cuts, error)
            self.optimizer.zero_grad(set_to_none=True)
        return Learnt(losses, self.optimizer.param_groups[0]["lr"], self.tokens(items), sum(map(self.places, cuts)), len(cuts))

    def cuts(self, items: Sequence[int]) -> list[list[int]]:
        """The step's micro-batches."""
        compute = self.work.compute
        return micro_batches(items, [int(self.work.train.sizes[item]) for item in items], compute.overhead, self.limit, compute.uniform, compute.padding)

    def tokens(self, items: Sequence[int]) -> int:
        """Tokens of examples, without padding."""
        return int(sum(self.work.train.sizes[item] for item in items))

    def places(self, items: Sequence[int]) -> int:
        """What a micro-batch computes, in tokens: with its padding, as far as that costs something."""
        longest = max(int(self.work.train.sizes[item]) for item in items)
        return math.ceil(computed_tokens(self.tokens(items), len(items) * longest, self.work.compute.padding))

    def reduce(self, cuts: list[list[int]], error: Exception) -> None:
        """Half as many tokens in a micro-batch from now on; where it holds one example, activations that are computed again."""
        if max(len(part) for part in cuts) == 1:
            if not self.work.compute.recompute and recompute(self.module):
                self.take(replace(self.work.compute, recompute=True, limit=self.limit))
                return
            raise TrainingError(
                f"the memory does not suffice for one example of {max(map(self.places, cuts))} {self.work.task.unit}.",
                hint="Cut the texts with --set train.max_length=N, or train fewer weights: --strategy lora",
            ) from error
        self.limit = max(1, max(self.places(part) for part in cuts if len(part) > 1) // 2)

    def move(self, step: int) -> float:
        """One step of the optimizer; returns the norm of the gradient before it was clipped."""
        work = self.work
        self.scaler.unscale_(self.optimizer.optimizer)
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        norm = float(sharding.whole(torch.nn.utils.clip_grad_norm_(trained, work.settings.clip or float("inf"))))
        self.scaler.step(self.optimizer.optimizer)
        self.scaler.update()
        self.vocabularies.stepped(self.optimizer)
        if self.accelerator.num_processes > 1 and not work.shard:
            broadcast(list(self.module.buffers()))  # statistics are those of what the first process saw
        work.strategy.after_step(self.module, step, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def moving(self) -> dict[str, torch.Tensor]:
        """What training changes, with every table whole: to be used inside `vocabularies.whole()`."""
        return checkpoint.moving(self.module, self.learned)

    def state(self) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
        """Tensors by group, and JSON; inside `vocabularies.whole()`."""
        tensors, plain = checkpoint.optimizer_state(self.optimizer.optimizer)
        return {"model": self.moving(), "optimizer": tensors, "vocabularies": self.vocabularies.ids()}, {
            "strategy": self.work.strategy.state(), "optimizer": plain, "scaler": self.scaler.state_dict(),
            "phase": self.phase, "limit": self.limit, "vocabularies": self.vocabularies.state(),
            "features": self.features.cached, "recompute": self.work.compute.recompute,
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
        self.work.strategy.restore(state["strategy"])
        if state["recompute"] and not self.work.compute.recompute:
            self.take(replace(self.work.compute, recompute=True))
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
