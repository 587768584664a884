"""Record a strategy in the real engine: which weights are frozen, which learn, and which of them
moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune.callbacks import Callbacks
from hubtune.contract import OptimizerStrategy, StepStrategy, Strategy
from hubtune.contract.validation import checked
from hubtune.errors import ModelError
from hubtune.testing.bench import Bench, calm, ensure

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter

    from hubtune.training.progress import Outcome


class Declined(ModelError):
    """Error of `prepare` for a model that the strategy cannot be used with, as only its weights
    show."""


@dataclass
class Watched:
    """Record of a strategy in one run.

    Attributes:
        outputs: Computes outputs of a model that do not depend on chance.
        start: Every parameter after `prepare`.
        learned: Names that were trainable in some phase.
        reached: Names that a gradient other than zero reached.
    """

    strategy: Strategy[Any]
    outputs: Callable[[Module], dict[str, Tensor]]
    newly_initialized: frozenset[str] = frozenset()
    start: dict[str, Tensor] = field(default_factory=dict)
    learned: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    module: Module | None = None
    added: bool = False
    hooked: set[str] = field(default_factory=set)
    rated: bool = False

    def __post_init__(self) -> None:
        strategy, watched = self.strategy, self
        prepare, groups = strategy.prepare, strategy.param_groups

        def record_prepare(
            model: Module, newly_initialized: frozenset[str], task: Any, plan: Any
        ) -> Module:
            before = {
                name: (parameter, parameter.detach().clone())
                for name, parameter in model.named_parameters()
            }
            outputs = watched.outputs(model)
            try:
                module = checked(strategy, "prepare", prepare(model, newly_initialized, task, plan))
            except ModelError as error:
                raise Declined(error.message, hint=error.hint, where=error.where) from error
            old = {id(parameter) for parameter, _ in before.values()}
            watched.module, watched.newly_initialized = module, newly_initialized
            watched.added = any(id(parameter) not in old for parameter in module.parameters())
            watched.start = {
                name: parameter.detach().clone() for name, parameter in module.named_parameters()
            }
            changed = changed_parameters(module, before, newly_initialized)
            if changed and not same_outputs(outputs, watched.outputs(module)):
                watched.faults.append(
                    f"prepare changed the values of {changed[0]}, and the outputs with them"
                )
            return module

        def record_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:
            made = checked(strategy, "param_groups", groups(model, weight_decay))
            watched.check_groups(model, made)
            return made

        strategy.prepare = record_prepare  # type: ignore[method-assign]
        strategy.param_groups = record_groups  # type: ignore[method-assign]

    def check_groups(self, model: Module, groups: list[dict[str, Any]]) -> None:
        """Note parameters that are in no group, in two, or in one although they are frozen."""
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
        grouped = [id(parameter) for group in groups for parameter in group["params"]]
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and name not in self.hooked:
                self.hooked.add(name)
                note = partial(self.note_gradient, name)
                parameter.register_hook(note)  # type: ignore[no-untyped-call]
        self.rated = self.rated or any(group.get("rate", 1.0) != 1.0 for group in groups)
        twice = sorted(names.get(key, "?") for key in set(grouped) if grouped.count(key) > 1)
        left = sorted(names[key] for key in trainable - set(grouped))
        frozen = sorted(names.get(key, "?") for key in set(grouped) - trainable)
        self.faults += [f"{what}: {found[:3]}" for what, found in (
            ("parameters in two groups", twice), ("trainable parameters in no group", left),
            ("frozen parameters in a group", frozen)) if found]
        self.learned |= {names[key] for key in trainable}

    def check(self) -> None:
        """Raise Failed unless what is frozen stayed, what is fresh learned, and all is finite."""
        import torch

        ensure(self.module is not None, "`prepare` was never called.", "the engine")
        ensure(
            not self.faults,
            f"{self.faults[:1]}",
            "`prepare`, `start_phase` and `param_groups`: each trainable parameter in one group",
        )
        ensure(self.learned, "nothing learns.", "`prepare` and `start_phase`: requires_grad")
        now = dict(self.module.named_parameters())  # type: ignore[union-attr]
        ensure(
            now.keys() == self.start.keys(),
            "parameters came or went while it trained.",
            "`after_step`, `start_phase`",
        )
        moved = {
            name for name, parameter in now.items() if not torch.equal(parameter, self.start[name])
        }
        frozen = sorted(moved - self.learned)
        ensure(
            not frozen,
            f"{len(frozen)} frozen weights changed, such as {frozen[:1]}.",
            "`start_phase`, `after_step`",
        )
        broken = sorted(name for name in self.learned if not bool(torch.isfinite(now[name]).all()))
        ensure(
            not broken,
            f"weights are no longer finite: {broken[:2]}.",
            "the learning rate in `defaults`, `after_step`",
        )
        still = sorted((self.reached & self.learned) - moved)
        ensure(
            not still,
            f"weights with a gradient did not move: {still[:2]}.",
            "`param_groups`: a learning rate of 0?",
        )
        ensure(moved, "no weight moved at all.", "`param_groups`, `optimizer`")
        for name in sorted(self.newly_initialized):
            standing = [inside for inside in now if holds(inside, name)]
            ensure(not standing or any(inside in self.learned for inside in standing),
                   f"the fresh weight {name} does not learn: it would stay random.",
                   "`prepare`: `newly_initialized` names what makes the head")
            ensure(standing, f"the fresh weight {name} is gone from the model.", "`prepare`")
        heads = [
            inside
            for inside in self.learned
            for name in self.newly_initialized
            if holds(inside, name)
        ]
        ensure(
            not self.newly_initialized or any(inside in moved for inside in heads),
            "no fresh weight moved.",
            "`prepare`, `param_groups`",
        )

    def note_gradient(self, name: str, gradient: Tensor) -> None:
        """Note a parameter that a gradient other than zero reached."""
        if bool((gradient != 0).any()):
            self.reached.add(name)

    def differs(self) -> bool:
        """Tell if the strategy does something that the plain class does not: it freezes, adds, or
        has its own steps."""
        strategy = self.strategy
        own = isinstance(strategy, StepStrategy | OptimizerStrategy) or bool(
            strategy.from_pretrained_kwargs()
        )
        return (
            own
            or self.rated
            or len(strategy.phases()) > 1
            or self.added
            or self.learned != set(self.start)
        )


def changed_parameters(
    module: Module, before: dict[str, tuple[Parameter, Tensor]], newly_initialized: frozenset[str]
) -> list[str]:
    """Return the names of pretrained parameters that have other values than before, or were
    replaced.

    Args:
        before: Every parameter of the pretrained model with a copy of its values.
    """
    left = {id(parameter) for parameter in module.parameters()}
    return [
        name
        for name, (parameter, values) in before.items()
        if name not in newly_initialized
        and (
            id(parameter) not in left
            or parameter.shape != values.shape
            or not bool((parameter == values).all())
        )
    ]


def same_outputs(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    """Return whether two models compute the same, as they do where a method moves a part of a
    weight into its adapter (PiSSA, OLoRA, LoRA-GA, OSF). Without outputs that can be compared they
    do not."""
    from hubtune.evaluation.verification import TOLERANCE

    return before.keys() == after.keys() != set() and all(
        value.shape == after[name].shape
        and float((value - after[name]).abs().max())
        <= TOLERANCE * max(1.0, float(value.abs().max()))
        for name, value in before.items()
    )


def holds(name: str, other: str) -> bool:
    """Return whether a parameter of a wrapped model is the one of this name: its parts in order,
    others between."""
    parts = iter(name.split("."))
    return name.rpartition(".")[2] == other.rpartition(".")[2] and all(
        part in parts for part in other.split(".")
    )


@dataclass
class Learnt:
    """Finished training of the kit."""

    watched: Watched
    outcome: Outcome


@calm()
def learn(bench: Bench, strategy: Strategy[Any], steps: int, folder: Path, rows: int = 8) -> Learnt:
    """Train through the real engine, with the strategy under watch."""
    import torch

    from hubtune import defaults
    from hubtune.devices import device
    from hubtune.evaluation.batches import evaluation_mode, make_batch
    from hubtune.evaluation.clean_process import compared_outputs
    from hubtune.recipe import TrainConfig
    from hubtune.training import loop
    from hubtune.training.context import TrainingContext

    def outputs(model: Module) -> dict[str, Tensor]:
        examples = bench.examples[: 1 if bench.uniform else 4]
        batch = make_batch(model, bench.task, examples, bench.base)
        inputs = {
            name: value for name, value in batch.inputs.items() if isinstance(value, torch.Tensor)
        }
        with evaluation_mode(model):
            return compared_outputs(model(**inputs))

    loaded = bench.fresh_model(strategy)
    watched = Watched(strategy, outputs)
    count = sum(parameter.numel() for parameter in loaded.model.parameters())
    settings = defaults.resolve(
        TrainConfig(
            max_steps=steps,
            batch_size=4,
            keep="last",
            early_stopping_patience=0,
            save_minutes=1e6,
            precision="fp32",
            max_grad_norm=0.0,
            warmup=0.0,
            schedule="constant",
        ),
        strategy.defaults,
        bench.encoded.rows,
        count,
    )
    compute = device.Compute("cpu", "fp32", 0, 64, 8192, uniform=bench.uniform)
    part = bench.part(rows)
    folder.mkdir(parents=True, exist_ok=True)
    outcome = loop.fit(
        TrainingContext(
            bench.task,
            strategy,
            bench.own,
            loaded.model,
            loaded.newly_initialized,
            bench.annotated,
            part,
            list(bench.rows[: part.rows]),
            settings,
            compute,
            folder,
        ),
        Callbacks(),
    )
    return Learnt(watched, outcome)


