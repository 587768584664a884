"""A tuned model as a function of tensors, and batches of several shapes to trace and to prove it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hubtune.contract import Base, Batch, ContrastiveTask, GenerativeTask, Graph, Task
from hubtune.errors import DataError, ModelError, listing

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "AutoModelForSequenceClassification": ("logits",), "AutoModelForTokenClassification": ("logits",),
    "AutoModelForQuestionAnswering": ("start_logits", "end_logits"), "AutoModel": ("last_hidden_state",),
    "AutoModelForImageClassification": ("logits",), "AutoModelForCausalLM": ("logits",), "AutoModelForMaskedLM": ("logits",),
}
"""Outputs that are exported, by the class of the model. Of others a user needs more than one forward pass gives."""
EMBEDDING = "sentence_embedding"
"""Output with a unit vector for each text, as the task pools it."""
TRACED = (9, 4)
"""Words of the made rows of the traced batch."""
PROVEN = ((1,), (5, 2, 30), (400,), (3, 3, 3, 3, 12))
"""Words of the made rows of the batches that are compared: other numbers of rows and other lengths."""
WORDS = ["The", "parcel", "came", "a", "week", "late,", "the", "box", "was", "open,", "and", "nobody", "answered", "my", "letter", "of", "May."]


def refuse(task: Task[Any]) -> None:
    """Refuse a task whose model is no function of tensors that users can call alone.

    Raises:
        ModelError: it is not.
    """
    if task.model not in OUTPUTS or task.unit == "frames":
        raise ModelError(f"models for '{task.name}' are not exported: their answers take more than one forward pass and a table of outputs.",
                         hint=f"Exported are models of: {listing(OUTPUTS, 20)}")


def plain(module: Module, repo: str) -> Module:
    """Return a model without PEFT's wrapper: an adapter is merged into its base.

    Raises:
        ModelError: prompts and prefixes are no part of a model's weights.
    """
    found: Any = module
    if not hasattr(found, "merge_and_unload"):
        return module
    if getattr(found, "active_peft_config", None) is not None and found.active_peft_config.is_prompt_learning:
        raise ModelError("its prompts or prefixes cannot be merged into its base model, so it cannot be exported.", where=repo,
                         hint="Train with another strategy, such as lora.")
    merged: Module = found.merge_and_unload()
    return merged


def made_batches(module: Module, task: Task[Any], base: Base) -> tuple[Batch, list[Batch]]:
    """Return a batch to trace with, and batches of other shapes to compare, of made rows: nothing of the data is in them.

    Raises:
        ModelError: rows for this task cannot be made.
    """
    from hubtune.evaluation import user_calls

    rows = []
    for lengths in (TRACED, *PROVEN):
        texts = [" ".join(WORDS[place % len(WORDS)] for place in range(length)) for length in lengths]
        rows.append([user_calls.made_row(task, text) for text in texts])
    made: list[list[Any]] = [[row for row in batch if row] for batch in rows]
    if not all(made):
        raise ModelError(f"rows for '{task.name}' cannot be made, so nothing would prove the exported file.",
                         hint="Export a model of another task.")
    if isinstance(task, GenerativeTask):
        made = [[task.question(row) for row in batch] for batch in made]
    try:
        traced, *others = [batch_of(module, task, batch, base) for batch in made]
    except DataError as error:
        raise ModelError(f"rows for '{task.name}' cannot be made, so nothing would prove the exported file: {error.message}",
                         hint="Export a model of another task.") from error
    return traced, others


def batch_of(module: Module, task: Task[Any], rows: Sequence[Any], base: Base) -> Batch:
    """Return the batch of some rows."""
    from hubtune.data import encoding
    from hubtune.evaluation.batches import make_batch

    encoded = encoding.encode(task, rows, base, base.max_length)
    return make_batch(module, task, [encoded.examples[item] for item in range(len(encoded.examples))], base)


def tensors(batch: Batch) -> dict[str, Tensor]:
    """Return the inputs of a batch that the model takes: tensors by name."""
    import torch

    return {name: value for name, value in batch.inputs.items() if isinstance(value, torch.Tensor)}


def build(module: Module, task: Task[Any], traced: Batch, others: Sequence[Batch]) -> Graph:
    """Return the graph of a model: axes vary that differ among the batches, and the first.

    Raises:
        ModelError: the batches have other inputs, as of a model whose inputs depend on the row.
    """
    inputs = tensors(traced)
    found = [tensors(batch) for batch in others]
    if any(one.keys() != inputs.keys() for one in found):
        raise ModelError(f"the inputs of this '{task.name}' model depend on the row, so one graph cannot have them all.")
    axes = {}
    for name, value in inputs.items():
        varying = [axis for axis in range(value.ndim)
                   if axis == 0 or any(one[name].shape[axis] != value.shape[axis] for one in found)]
        axes[name] = {axis: axis_name(name, axis, value.ndim) for axis in varying}
    names = OUTPUTS[task.model]
    is_pooled = isinstance(task, ContrastiveTask) and task.model == "AutoModel"
    return Graph(as_function(module, task, list(inputs), names, is_pooled), inputs, axes,
                 (*names, EMBEDDING) if is_pooled else names)


def axis_name(name: str, axis: int, ndim: int) -> str:
    """Return what to call an axis that varies."""
    if axis == 0:
        return "batch"
    return "sequence" if ndim == 2 else f"{name}_{axis}"


def as_function(
    module: Module, task: Task[Any], inputs: Sequence[str], outputs: Sequence[str], is_pooled: bool
) -> Module:
    """Return a module from tensors to a tuple of tensors; a decoder keeps no cache."""
    import torch

    config: Any = module.config
    fixed: dict[str, Any] = {"use_cache": False} if task.model == "AutoModelForCausalLM" else {}

    class Function(torch.nn.Module):
        """The model, with inputs and outputs by position."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.config = module, config

        def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
            """Run the model."""
            named = dict(zip(inputs, given, strict=True))
            found = self.model(**named, **fixed)
            values = tuple(getattr(found, name) for name in outputs)
            if is_pooled:
                pooled: Any = task
                values += (pooled.embed(found, Batch(named, None, given[0].shape[0])).flatten(0, 1),)
            return values

    return Function().eval()


def expected_outputs(graph: Graph, batches: Sequence[Batch]) -> list[dict[str, Any]]:
    """Return what the trained model says of batches, as NumPy arrays by output."""
    import torch

    with torch.no_grad():
        found = [graph.module(*tensors(batch).values()) for batch in batches]
    return [{name: value.numpy() for name, value in zip(graph.outputs, one, strict=True)} for one in found]
