"""The base of tasks whose model gives every row a number for each label: all but what they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hubtune import (
    Base,
    Batch,
    ClassificationTask,
    Example,
    LabelKind,
    Loss,
    Metric,
    ModelSetup,
    Panel,
    Prediction,
    RecipeError,
    Row,
    Rows,
    column_values,
    exact,
    label_config,
    option,
    spelled_as,
)
from hubtune_plugins.classification import fitted_decisions, forms, panels
from hubtune_plugins.classification.kinds import KINDS, One, kind_in
from hubtune_plugins.classification.pooling import pooling_config

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LabelOptions:
    class_weights: str = option("none", "balanced: rare labels weigh more in the loss", choices=("none", "balanced"))
    kind: str = option("auto", "what a label is: one of a few, several, or a number",
                       choices=("auto", "single_label", "multi_label", "regression"))
    label_form: str = option("auto", "what a list of zeros and ones is: names of labels, or a position for each class",
                             choices=("auto", "names", "positions"))
    separator: str = option("auto", "what stands between several labels in one cell; auto: | or ; or , where the parts recur")
    metric: str = option("auto", "what decides which weights are best", choices=(
        "auto", "accuracy", "f1_macro", "f1_weighted", "f1_micro", "pearson", "spearman", "mae", "rmse"))
    threshold: float | Literal["auto"] = option(
        0.5, "with several labels: the probability from which a label is given; auto: one per label, tuned on validation for its F1")
    calibrate: bool = option(False, "fit a temperature on the validation rows: probabilities are as often right as they say")
    abstain_accuracy: float | None = option(None, "one label: answer only where so large a share of validation rows is right")
    pooling: str = option("auto", "of models without a head in transformers: the states that hubtune's head reads",
                          choices=("auto", "mean", "first", "last"))
    abstain_coverage: float | None = option(None, "one label: answer only so large a share of rows, the surest ones")


class Labelled(ClassificationTask[Any]):
    """A task whose outputs have `logits` (rows, labels) and whose rows have a `label`. Examples may hold `target`."""

    contract = 2
    metric = Metric("accuracy")
    shares = ("accuracy",)
    Options = LabelOptions

    def names_of(self, labels: Any) -> dict[Any, Any]:
        """Return what each raw label is called; the order is the model's."""
        return {label: label for label in labels}

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        found = forms.find(column_values(splits["train"], "label"), self.options, self.label_names)
        kind = KINDS[found.kind](self.options, found.form)
        return {"kind": found.kind, "form": found.form.as_json(), "notes": list(found.notes),
                **kind.dataset_info(splits, self.names_of)}

    def row_labels(self, rows: Rows, dataset_info: Mapping[str, Any]) -> Sequence[Sequence[str]]:
        form = forms.LabelForm.of(dataset_info.get("form"), self.options)
        kind, names = KINDS[dataset_info["kind"]](self.options, form), dataset_info.get("names", {})
        if kind.name == "regression":
            return ()
        read = forms.remembered(lambda value: [names.get(label, label) for label in kind.labels(value)])
        return column_values(rows, "label", make=read)

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        kind = dataset_info.get("kind") or kind_in(base.config)
        self.kind = KINDS[kind](self.options, forms.LabelForm.of(dataset_info.get("form"), self.options))
        fitted_decisions.refuse_unfit(self.options, kind)
        known, self.weights = dataset_info.get("labels"), None
        labels = label_config(known or (["LABEL_0"] if kind == "regression" else None), base.config, any_spelling=True)
        self.spelled = {label: label for label in known or ()} | spelled_as(known or (), labels["label2id"])
        self.names = {raw: self.spelled[label] for raw, label in dataset_info.get("names", {}).items()}
        if self.options.class_weights != "none" and self.loss_function is not None:
            raise RecipeError(
                f"task.class_weights weighs the task's own loss, which loss.name={self.loss_function.name} replaces.",
                hint="Leave task.class_weights out, and give the loss its own: --set loss.class_weights=balanced")
        if self.options.class_weights == "balanced" and dataset_info.get("counts"):
            found = self.counted(dataset_info)
            counts = [found[label] for label in labels["label2id"]]
            self.weights = [sum(counts) / (len(counts) * count) for count in counts]
        return ModelSetup({**labels, "problem_type": self.kind.problem, **pooling_config(base.config, self.options.pooling)})

    def select_metric(self, base: Base) -> Metric:
        name = self.kind.metric if self.options.metric == "auto" else self.options.metric
        return Metric(name, higher_is_better=name not in ("mae", "rmse"))

    def with_target(self, example: Example, row: Row, base: Base) -> Any:
        """The example, with what is right where the row says it."""
        if row.get("label") is None:
            return example
        return {**example, "target": self.kind.target(row["label"], self.names, base.config)}

    def batch(self, inputs: Any, examples: Sequence[Example]) -> Batch:
        """Inputs with the targets of their examples, if all have one."""
        import torch

        known = all("target" in example for example in examples)
        if not known:
            return Batch(inputs, None, len(examples))
        targets = torch.tensor([e["target"] for e in examples])
        return Batch(inputs, targets, len(examples), {"loss": sum(self.weights_of(targets))})

    def weights_of(self, targets: Any) -> Any:
        """The weight of each row: of its label, where labels are weighted."""
        if self.weights is None or targets.is_floating_point():
            return [1.0] * len(targets)
        return [self.weights[target] for target in targets.tolist()]

    def label_kind(self) -> LabelKind:
        kind: One = self.kind
        return kind.name

    def label_counts(self, dataset_info: Mapping[str, Any], base: Base) -> Mapping[str, int]:
        counts = self.counted(dataset_info)
        return {label: counts[label] for label in base.config.label2id} if counts else {}

    def counted(self, dataset_info: Mapping[str, Any]) -> dict[str, int]:
        """The training rows of each label, by its name in the model."""
        return {self.spelled[label]: count for label, count in dataset_info.get("counts", {}).items()}

    def class_logits(self, outputs: Any, batch: Batch) -> Tensor:
        logits: Tensor = outputs.logits
        return logits

    def class_answers(
        self, predictions: Sequence[Prediction], rows: Rows, base: Base
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        return self.kind.references(predictions, [row["label"] for row in rows], self.names, base.config)

    def loss(self, outputs: Any, batch: Batch) -> Loss | list[Loss]:
        weights = self.weights_of(batch.targets)
        each = self.kind.losses(exact(outputs.logits), batch.targets)
        return Loss((each * each.new_tensor(weights)).sum())

    def postprocess(self, outputs: Any, batch: Batch, base: Base) -> list[Prediction]:
        logits = exact(outputs.logits)
        return self.kind.answers(logits, [base.config.id2label[index] for index in range(logits.shape[-1])])

    def score(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, float]:
        kind: One = self.kind
        return kind.score(predictions, [row["label"] for row in rows], self.names, base.config)

    def report(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, Any]:
        kind: One = self.kind
        found = kind.report(predictions, [row["label"] for row in rows], self.names, base.config)
        if kind.name == "regression":
            return found
        right, given = self.class_answers(predictions, rows, base)
        return {**found, **fitted_decisions.report(predictions, right, given, kind.name == "multi_label")}

    def panels(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> Sequence[Panel]:
        kind = self.label_kind()
        right, given = self.class_answers(predictions, rows, base)
        labels = list(base.config.label2id)
        if kind == "regression":
            return panels.numbers(right, given, lambda row: self.media(rows[row]))
        if kind == "multi_label":
            return panels.several_labels(predictions, right, labels, lambda row: self.media(rows[row]))
        return panels.one_label(predictions, right, given, labels, lambda row: self.media(rows[row]))

    def media(self, row: Row) -> str | None:
        """Return a row's image or sound for the page, as a `data:` address; None where it has only text."""
        return None

    def fit_decisions(self, predictions: Sequence[Prediction], rows: Rows, base: Base) -> dict[str, Any]:
        if self.label_kind() == "regression":
            return {}
        right, _ = self.class_answers(predictions, rows, base)
        return fitted_decisions.fit(self.options, predictions, right, self.label_kind() == "multi_label")

    def decide(self, prediction: Prediction, decisions: Mapping[str, Any]) -> Prediction:
        return fitted_decisions.apply(prediction, decisions, self.label_kind() == "multi_label")
