"""Base classes of tasks. A task derives from what it can do; core asks with `isinstance`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hubtune.contract.functions import LossFunction, MetricFunction
from hubtune.contract.plugin import OptionsT, Plugin
from hubtune.contract.types import (
    Base,
    Batch,
    Column,
    Example,
    ExampleRNG,
    LabelKind,
    Loss,
    Metric,
    ModelSetup,
    Panel,
    Prediction,
    Row,
    Rows,
    UserCall,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class Task(Plugin[OptionsT]):
    """A kind of problem: its columns, how a row becomes an example, the loss, and how predictions are scored."""

    columns: ClassVar[tuple[Column, ...]]
    metric: ClassVar[Metric]
    model: ClassVar[str]
    """The transformers class that makes the model, such as `AutoModelForSequenceClassification`."""
    processor: ClassVar[str] = "AutoTokenizer"
    pipeline_tag: ClassVar[str]
    """The Hub's name for what the model does, which decides its widget."""
    unit: ClassVar[Literal["tokens", "patches", "frames"]] = "tokens"
    """Unit of `num_tokens`. Only tokens have a limit that comes from the model, and are truncated there."""
    input: ClassVar[str | None] = None
    """The role of a bare text, or of a file's name, given to `predict`; default: the only column that is always needed."""
    bootstrap_samples: ClassVar[int] = 200
    """Resamples of the rows for the 95% intervals; 0 where `score` is slow or cannot be resampled."""
    shares: ClassVar[tuple[str, ...]] = ()
    """Metrics of `score` that are the mean of a 0 or 1 per row, such as accuracy: their intervals are Wilson's, also on few rows."""
    base_files: ClassVar[tuple[str, ...]] = ()
    """Patterns of paths in the model's repository, such as `modules.json` or `*_Dense/*`: small files that the task reads in
    `base.folder`. They are fetched with the configuration, before any weights."""
    fixture: ClassVar[str | None] = None
    """Rows that `hubtune plugins --check` tries the task on: `module:class` of a `hubtune.testing.TaskFixture`."""

    added_columns: tuple[str, ...] = ()
    """Roles that `add_columns` fills, given this task's options. Data with such columns cannot be streamed."""

    @classmethod
    def for_config(cls, config: Any) -> type[Task[Any]]:
        """Return the class of this task for a model of this configuration. Default: this one.

        A task with several kinds of model under one name, such as speech recognition by CTC or by a decoder, returns a
        subclass of the registered class here. It is made with the same options once the configuration is known, and has
        the attributes that were set by then: what comes before (`validate_data`) is the registered class's. Called of a
        subclass too, with other configurations.
        """
        return cls

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        """Check the training data and describe it, before any model is fetched.

        Returns JSON, such as the label space. It is kept in `run.json` and with the model; a list under `labels` is
        shown by `--check` and by the card, and the sentences under `notes` are shown before training: what was decided about
        the data. Rows that are evaluated or predicted later do not come here, but only to `encode`.

        Raises:
            DataError: for rows that cannot be learnt from, with their numbers.
        """
        return {}

    def add_columns(self, rows: Rows) -> Mapping[str, Sequence[Any]]:
        """Compute columns from all rows of a split, by role, with one value per row: such as negatives found by another model.

        Called once per split, after `validate_data` and before `encode`, and for rows that are evaluated later; never for rows
        to be predicted. Only called where `added_columns` names a role. The same rows have to give the same columns.
        """
        return {}

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        """Return changes to the model's configuration and tokenizer; neither is changed in place.

        Args:
            dataset_info: what `validate_data` returned; empty for a model that was tuned without hubtune.
        """
        return ModelSetup()

    def select_metric(self, base: Base) -> Metric:
        """Return the metric that decides which weights are best: a key of what `score` makes of `postprocess`'s answers."""
        return self.metric

    @abstractmethod
    def encode(self, rows: Rows, base: Base) -> Iterable[Sequence[Example]]:
        """Yield the examples of each row: one list per row (several examples: windows over it), cut at `base.max_length`.

        Rows may lack their targets. Nothing is padded, decoded or moved to a device here. Large data comes some rows at a
        time; `enumerate_rows` gives their numbers. Examples are kept in Arrow files: numbers, strings, None, lists, dicts and
        NumPy arrays come back as they are, tuples as lists; all else stays in memory.

        Raises:
            DataError: for a target that the model does not know.
        """

    @abstractmethod
    def num_tokens(self, example: Example) -> int:
        """Return the cost of an example in `unit`s: a batch costs its longest times its count.

        A patch is 16 x 16 pixels, a frame 20 ms of sound, so that sizes of all tasks are alike.
        """

    def length(self, example: Example) -> int:
        """Return what `base.max_length` limits: less than `num_tokens` where several texts of a row are cut one by one."""
        return self.num_tokens(example)

    @abstractmethod
    def collate(self, examples: Sequence[Example], base: Base, rngs: Sequence[ExampleRNG] | None) -> Batch:
        """Pad and stack examples; images and sound are decoded here. rngs: the randomness of each; None in evaluation.

        The batch has no targets where an example has none. Its `counts` are the denominators of the loss terms.
        """

    def forward(self, model: Module, batch: Batch) -> Any:
        """Run the model. Default: its own output for all inputs but lists, which are for `postprocess` (such as sizes)."""
        return model(**{name: value for name, value in batch.inputs.items() if not isinstance(value, list)})

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> Loss | list[Loss]:
        """Return the loss of a batch, summed over its targets, from what `forward` returned."""

    @abstractmethod
    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
        """Return one answer per example from one forward pass: cheap enough for every validation."""

    def merge(self, parts: Sequence[Prediction], row: Row, base: Base) -> Prediction:
        """Return one answer from the answers of a row's examples. Default: the only one."""
        return parts[0]

    @abstractmethod
    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        """Return metrics over all rows. Called again on resampled rows, for the intervals."""

    def report(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, Any]:
        """Return more than one line of numbers, such as a table per class, as JSON. Default: nothing."""
        return {}

    def panels(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> Sequence[Panel]:
        """Return parts of the run's page, `report.html`: curves, bars, a confusion matrix, rows to look at. Default: none.

        Called once after training, with the decided predictions of the test rows (or of the validation rows without these).
        Without a `RowsPanel`, the page shows the rows with the lowest score.
        """
        return ()

    def show(self, prediction: Prediction) -> Prediction:
        """Return the part of a prediction for users; entries that only `score` needs go here. Default: all of it."""
        return prediction

    def usage(self, repo: str, base: Base) -> str:
        """Return Python that uses the published model without hubtune. Default: its pipeline."""
        return (f'from transformers import pipeline\n\npipe = pipeline("{self.pipeline_tag}", model="{repo}")\n'
                'print(pipe("What a lovely day"))')

    def user_call(self, row: Row, base: Base) -> UserCall | None:
        """Return how users ask the published model about a row without targets, as `usage` shows it; None: not known.

        The proof asks the saved model so, through its own tokenizer or processor and configuration, and compares its answers with
        those of the trained model. Without it, the proof compares the outputs for recorded inputs alone. Default: None.
        """
        return None

    def files(self, base: Base) -> Mapping[str, str | bytes]:
        """Return more files to publish, by name: what another library needs to load the model. Default: none."""
        return {}


class ClassificationTask(Task[OptionsT]):
    """A task that gives each target a logit per label, so that users may choose its loss and further metrics.

    With a loss of the recipe (`loss.name`), neither `loss` nor `Batch.counts` of the task is used.
    """

    loss_function: LossFunction[Any] | None = None
    """The loss that the recipe chooses, set before `validate_data`; None: the task's own."""
    metric_functions: tuple[MetricFunction[Any], ...] = ()
    """The metrics that the recipe chooses beside those of `score`."""
    best_metric: Metric | None = None
    """The metric of `train.metric_for_best_model`; None: `select_metric` decides."""
    label_names: tuple[str, ...] = ()
    """The names that the recipe gives to numbered labels (`data.label_names`), set before `validate_data`."""

    @abstractmethod
    def label_kind(self) -> LabelKind:
        """Return what the label of a row is. Called after `model_config`."""

    @abstractmethod
    def label_counts(self, dataset_info: Mapping[str, Any], base: Base) -> Mapping[str, int]:
        """Return how many training rows (or words) have each label, by name, in the order of the model's ids.

        Empty for numbers.
        """

    @abstractmethod
    def class_logits(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the logits of the targets, (targets, labels)."""

    def row_labels(self, rows: Rows, dataset_info: Mapping[str, Any]) -> Sequence[Sequence[str]]:
        """Return the names of the labels of each row, for reports about the data. Default: nothing is told.

        Args:
            dataset_info: what `validate_data` returned for these rows.
        """
        return ()

    def class_targets(self, batch: Batch) -> Tensor:
        """Return the targets: ids (targets,); of several labels, zeros and ones (targets, labels); of numbers, (targets,).

        Default: `batch.targets`.
        """
        targets: Tensor = batch.targets
        return targets

    @abstractmethod
    def class_answers(
        self, predictions: Sequence[Prediction], rows: Rows, base: Base
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return the right answers and the predicted ones, one per row (or word), in the form of `class_targets`."""

    def fit_decisions(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, Any]:
        """Fit what turns the model's probabilities into answers, such as thresholds, as JSON. Default: nothing, `{}`.

        Called once after training, with predictions of the validation rows. `run.json` and the model's files keep the result;
        sentences under `notes` are shown after training and on the card.
        """
        return {}

    def decide(self, prediction: Prediction, decisions: Mapping[str, Any]) -> Prediction:
        """Return a prediction as `fit_decisions`' result has it; not called where that was empty. Default: unchanged."""
        return prediction


class ContrastiveTask(Task[OptionsT]):
    """A task whose loss compares the examples of a whole step with each other, such as in-batch negatives.

    A step is cut all the same: gradients flow through a cache of the embeddings (Gao et al., GradCache, arXiv:2101.06983), and
    without a second forward pass where the whole step fits.
    """

    @abstractmethod
    def embed(self, outputs: Any, batch: Batch) -> Tensor:
        """Return what the loss compares, one entry per example, (examples, ...)."""

    @abstractmethod
    def contrastive_loss(self, embeddings: Tensor, batches: Sequence[Batch]) -> Loss:
        """Return the loss of a step from all its embeddings, in the order of its batches."""

    def loss(self, outputs: Any, batch: Batch) -> Loss | list[Loss]:
        """Return the loss of a batch that is a whole step."""
        return self.contrastive_loss(self.embed(outputs, batch), [batch])


class SamplingTask(Task[OptionsT]):
    """A task that draws another example of the same key beside an example, anew in every epoch: `ExampleRNG.others`."""

    @abstractmethod
    def sampling_key(self, example: Example) -> int | None:
        """Return the number that an example shares with those that may be drawn for it; None: with no other."""


class ReferenceTask(Task[OptionsT]):
    """A task that compares the model with what it was before training, such as DPO."""

    @abstractmethod
    def reference_outputs(self, outputs: Any, batch: Batch, base: Base) -> list[dict[str, Any]]:
        """Return what the untrained model says of each example; asked once, before step 0, and added to the examples."""


class GenerativeTask(Task[OptionsT]):
    """A task that answers by generation. Rows are evaluated with `postprocess` too; a prediction holds both answers."""

    @abstractmethod
    def predict(self, model: Module, batch: Batch, base: Base) -> list[Prediction]:
        """Generate one answer per example; empty dicts where only `postprocess` is wanted."""

    def generation_config(self, base: Base) -> Mapping[str, Any]:
        """Return attributes to set in the model's generation configuration, which is published with it. Default: none."""
        return {}

    def question(self, row: Row) -> Row:
        """Return the part of a row that a prediction may see, beyond the columns without targets. Default: all of it."""
        return row
