"""The base class of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hubtune.contract.plugin import OptionsT, Plugin
from hubtune.contract.types import (
    Base,
    Batch,
    Column,
    Example,
    ExampleRNG,
    Loss,
    Metric,
    ModelSetup,
    Prediction,
    Row,
    Rows,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class Task(Plugin[OptionsT]):
    """What to learn: which columns, how a row becomes an example, what the loss is, how answers are scored."""

    columns: ClassVar[tuple[Column, ...]]
    metric: ClassVar[Metric]
    model: ClassVar[str]
    """The transformers class that makes the model, such as `AutoModelForSequenceClassification`."""
    processor: ClassVar[str] = "AutoTokenizer"
    pipeline_tag: ClassVar[str]
    """The Hub's name for what the model does, which decides its widget."""
    unit: ClassVar[Literal["tokens", "patches", "frames"]] = "tokens"
    """What `num_tokens` counts. Only tokens have a limit that comes from the model, and are cut there."""
    input: ClassVar[str | None] = None
    """The role of a bare text, or of a file's name, given to `predict`; default: the only column that is always needed."""
    additive: ClassVar[bool] = True
    """Whether the loss of a batch is the sum of its examples' losses, so that a step may be cut anyhow. A loss over the
    whole step, such as a contrastive one, is not, and has `embed` and `contrastive_loss` instead of `loss`."""
    bootstrap_samples: ClassVar[int] = 200
    """How often `score` is called on resampled rows for the 95% intervals; 0 where it is slow or cannot be resampled."""

    added_columns: tuple[str, ...] = ()
    """Roles that `add_columns` fills, given this task's options. Data with such columns cannot be streamed."""

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        """Read the training data before any model is fetched: JSON facts such as the label space.

        Raises DataError, with row numbers, for what cannot be learnt from. Kept in `run.json`. A list under `labels` is shown by
        `--check` and by the card. Rows that are evaluated or predicted later do not come here, but only to `encode`.
        """
        return {}

    def add_columns(self, rows: Rows) -> Mapping[str, Sequence[Any]]:
        """Compute columns from all rows of a split, by role, with one value per row: such as negatives found by another model.

        Called once per split, after `validate_data` and before `encode`, and for rows that are evaluated later; never for rows
        to be predicted. Only called where `added_columns` names a role. The same rows have to give the same columns.
        """
        return {}

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        """What the model's configuration and processor need, given what `validate_data` found; no facts: a model that was
        tuned without hubtune."""
        return ModelSetup(processor=base.processor)

    def select_metric(self, base: Base) -> Metric:
        """What decides for this model; default: the class's `metric`. One of what `score` makes of `postprocess`'s answers."""
        return self.metric

    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        """Examples of many rows, one list per row (several: windows over it), cut at `base.max_length`.

        Rows may lack their targets; raises DataError for a target that the model does not know. Nothing is padded, decoded or moved to a device here. Of large data, this is called for
        some rows at a time; `enumerate_rows` says which these are. Examples are kept in flat arrays: a mapping comes back as a dict.
        """
        raise NotImplementedError

    def num_tokens(self, example: Example) -> int:
        """What an example costs, in `unit`s: a batch costs its longest times its count. A patch is 16 x 16 pixels, a
        frame 20 ms of sound, so that sizes of all tasks are alike."""
        raise NotImplementedError

    def length(self, example: Example) -> int:
        """What `base.max_length` limits; default: the size. Less where several texts of a row are cut one by one."""
        return self.num_tokens(example)

    def sampling_key(self, example: Example) -> int | None:
        """A number that examples have in common of which one may be drawn for another: `ExampleRNG.others`. Default: none."""
        return None

    def collate(self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None) -> Batch:
        """Pad and stack; images and sound are decoded here. `rngs` holds an example's randomness; None in evaluation."""
        raise NotImplementedError

    def reference_outputs(self, outputs: Any, batch: Batch, base: Base) -> list[dict[str, Any]]:
        """What the untrained model says of each example, once, before step 0: a frozen reference. Added to the examples."""
        raise NotImplementedError

    def count(self, batch: Batch) -> dict[str, float]:
        """The count that each loss term will have, before it is computed, by the term's name. Default: `loss` counts the rows."""
        return {"loss": float(batch.size)}

    def forward(self, model: Module, batch: Batch) -> Any:
        """Run the model; whatever `loss` and `postprocess` need. Default: the model's own output for all inputs but lists,
        which are for `postprocess` (such as the sizes of images)."""
        return model(**{name: value for name, value in batch.inputs.items() if not isinstance(value, list)})

    def loss(self, outputs: Any, batch: Batch) -> Loss | list[Loss]:
        """The summed loss of a batch, from what `forward` returned."""
        return self.contrastive_loss(self.embed(outputs, batch), [batch])

    def embed(self, outputs: Any, batch: Batch) -> Tensor:
        """For a loss over the whole step: what it compares, one entry per example, (examples, ...)."""
        raise NotImplementedError

    def contrastive_loss(self, representations: Tensor, batches: Sequence[Batch]) -> Loss:
        """For a loss over the whole step: the loss of all its representations, in the order of its batches.

        Gradients flow through a cache of them, so that a step may be cut (Gao et al., GradCache, arXiv:2101.06983).
        """
        raise NotImplementedError

    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
        """One answer per example from one forward pass: cheap enough for every validation."""
        raise NotImplementedError

    def predict(self, model: Module, batch: Batch, base: Base) -> list[Prediction]:
        """One answer per example, the real thing (such as generated text). Default: `postprocess`.

        Where a task has its own, rows are evaluated with both, and a prediction holds the entries of both.
        """
        return self.postprocess(self.forward(model, batch), batch, base)

    def merge(self, parts: Sequence[Prediction], row: Row, base: Base) -> Prediction:
        """One answer from the answers of a row's examples. Default: the only one."""
        return parts[0]

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        """Metrics over all rows. Called again on resampled rows, for the intervals."""
        raise NotImplementedError

    def report(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, Any]:
        """More than numbers in a line, such as a table per class; JSON. Default: nothing."""
        return {}

    def question(self, row: Row) -> Row:
        """What of a row a prediction may see, beyond the targets' columns, which it never sees. Default: all of it."""
        return row

    def show(self, prediction: Prediction) -> Prediction:
        """What of a prediction the user sees; default: all of it. Here go entries that only `score` needs."""
        return prediction

    def usage(self, repo: str, base: Base) -> str:
        """Python that uses the published model without hubtune; default: its pipeline."""
        return (f'from transformers import pipeline\n\npipe = pipeline("{self.pipeline_tag}", model="{repo}")\n'
                'print(pipe("What a lovely day"))')

    def files(self, base: Base) -> dict[str, str]:
        """More files to publish, by name: what another library needs to load the model. Default: none."""
        return {}

    def sample(self, count: int) -> list[dict[str, Any]]:
        """Labelled rows that can be learnt, for the conformance kit: by role, the same at every call."""
        raise NotImplementedError

    def gold(self, row: Row, base: Base) -> Prediction:
        """The prediction that a labelled row deserves, for the conformance kit: no other may score better."""
        raise NotImplementedError
