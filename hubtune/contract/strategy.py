"""The base class of strategies."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from hubtune.contract.plugin import OptionsT, Plugin
from hubtune.contract.task import Task
from hubtune.contract.types import Base, Export, LoadsWith, Phase, Plan

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer


class Strategy(Plugin[OptionsT]):
    """Choice of the trained weights and of the way they are trained. Unmodified, it is full fine-tuning."""

    paper: ClassVar[str | None] = None
    """Paper that introduced the method."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Values that suit the method for keys that a recipe leaves open: `{"train.learning_rate": 2e-4}`, the rate for 110 M
    parameters; also `train.epochs`, `max_steps`, `batch_size`,
    `weight_decay`, `sampler`, `max_length`, `evals_per_epoch`, `keep` and `early_stopping_patience`."""
    loads_with: ClassVar[LoadsWith] = "transformers"
    config_key: ClassVar[str] = ""
    """Key of `config.json`, beginning with `hubtune_`, under which `with_code` records the modules that the method adds; empty:
    it adds none that need code. A model with such a record is a base like any other: hubtune builds it by `add_modules`."""

    @classmethod
    def variants(cls) -> Mapping[str, Mapping[str, Any]]:
        """Options to check as cells of their own in `hubtune plugins --check`, by a name for each. Default: none."""
        return {}

    def refuse(self, task: Task[Any], config: Any) -> str | None:
        """Why this cannot apply, from the configuration alone and before weights are downloaded; or None."""
        return None

    def from_pretrained_kwargs(self) -> dict[str, Any]:
        """Further arguments of `from_pretrained`."""
        return {}

    def num_virtual_tokens(self) -> int:
        """Return how many of the positions that a model has the method takes for itself: texts are cut so much earlier."""
        return 0

    def prepare(self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan) -> Module:
        """Freeze, wrap or add. `newly_initialized`: names of parameters that make the head or were not pretrained.

        Raises ModelError where only the weights show that the method cannot apply; `refuse` says it earlier where it can.
        """
        return model

    def phases(self) -> tuple[Phase, ...]:
        """The stretches of the run, in order. Default: one."""
        return (Phase("all"),)

    def start_phase(self, model: Module, phase: Phase) -> None:
        """Choose what learns in a phase, by `requires_grad`, from any state that another phase left."""

    def param_groups(self, model: Module, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups: every trainable parameter in exactly one. Default: no decay on vectors.

        A group's `rate` multiplies the run's learning rate for it. Called at the start of every phase.
        """
        decayed: list[Parameter] = []
        plain: list[Parameter] = []
        for parameter in model.parameters():
            if parameter.requires_grad:
                (decayed if parameter.ndim > 1 else plain).append(parameter)
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

    def state(self) -> dict[str, Any]:
        """JSON that no state_dict holds, for the checkpoint."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""

    def export(self, model: Any) -> Export:
        """The model as it is published; `model` is not used afterwards."""
        return Export(root=model)

    @classmethod
    def add_modules(cls, model: Module, recorded: Mapping[str, Any]) -> None:
        """Add the modules that `config.json` records to a model that has just been made, before its weights are loaded.

        The model may be of another class than the one that was published, and `recorded` of any author.
        """

    @classmethod
    def with_code(cls, export: Export, auto: str, recorded: Mapping[str, Any]) -> Export:
        """The export of a model that has the recorded modules, with the code that builds it and with its record.

        auto: the class of transformers that loads it.
        """
        return export

    def usage(self, task: Task[Any], repo: str, base: Base) -> str:
        """Python that uses the published model without hubtune; default: the task's."""
        return task.usage(repo, base)


class StepStrategy(Strategy[OptionsT]):
    """A method that reads the weights, or changes them, in every step."""

    def regularization(self, model: Module) -> Tensor | None:
        """Return a scalar that is added to the loss of a step, once, however it is cut. Default: none."""
        return None

    def after_step(self, model: Module, step: int, steps: int) -> None:
        """Act after the optimizer's step and before gradients are cleared."""


class OptimizerStrategy(Strategy[OptionsT]):
    """A method with an optimizer of its own, in place of AdamW."""

    @abstractmethod
    def optimizer(self, param_groups: list[dict[str, Any]], learning_rate: float) -> Optimizer:
        """Return the optimizer of a phase."""
