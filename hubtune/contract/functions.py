"""The base classes of losses and metrics that a recipe chooses by name, for any classification task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hubtune.contract.plugin import OptionsT, Plugin
from hubtune.contract.types import LabelKind

if TYPE_CHECKING:
    from torch import Tensor


class LossFunction(Plugin[OptionsT]):
    """A loss of labels, chosen with `loss.name` in place of a task's own. Its options are the other keys of `[loss]`.

    A step's loss is the sum of `losses` times `weights` over all its targets, divided by the sum of the weights.
    """

    paper: ClassVar[str | None] = None
    """Paper that introduced the loss."""
    kinds: ClassVar[tuple[LabelKind, ...]] = ("single_label",)
    """Kinds of labels that it takes."""

    def fit(self, kind: LabelKind, counts: Mapping[str, int]) -> dict[str, Any]:
        """Compute what the loss needs to know of the training data, as JSON. Default: nothing.

        Called once, before weights are fetched; `run.json` keeps the result, which a resumed run reads back.

        Args:
            kind: what the labels of a row are.
            counts: training rows (or words) with each label, by its name, in the order of the model's ids.

        Raises:
            RecipeError: for an option that does not fit these labels.
        """
        return {}

    def restore(self, fitted: Mapping[str, Any]) -> None:
        """Take what `fit` returned, in a new run and in one that is resumed."""

    @abstractmethod
    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each target, (targets,); that of one target depends on no other.

        Args:
            logits: (targets, labels), fp32 or fp64.
            targets: ids (targets,); of several labels, zeros and ones (targets, labels); of numbers, (targets,).
        """

    def weights(self, targets: Tensor) -> Tensor | None:
        """Return the weight of each target, (targets,), 0 or more. Default: None, all weigh 1."""
        return None


class MetricFunction(Plugin[OptionsT]):
    """A score of labels, chosen with `train.metrics` beside a task's own. It has no options."""

    higher_is_better: ClassVar[bool] = True
    """True if a better model has a higher score."""
    kinds: ClassVar[tuple[LabelKind, ...]] = ("single_label",)
    """Kinds of labels that it takes."""

    @abstractmethod
    def compute(self, references: Sequence[Any], predictions: Sequence[Any], labels: Sequence[str]) -> float:
        """Return the score of all rows. Called again on resampled rows, for the intervals.

        Args:
            references: the right answers, as scikit-learn's metrics take them: ids; of several labels, a list of zeros
                and ones per row; of numbers, floats.
            predictions: the model's answers, likewise.
            labels: the names of the labels, in the order of their ids; empty for numbers.
        """


def exact(tensor: Tensor) -> Tensor:
    """A tensor of whatever shape in fp32 at least: a model may answer in half precision, fp64 stays as it is."""
    import torch

    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
