"""Kinds of labels (one of a few, several of a few, a number): loss, predictions and metrics of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hubtune import (
    DataError,
    LabelKind,
    Prediction,
    Rows,
    column_values,
    label_id,
    label_space,
    row_numbers,
)
from hubtune_plugins.classification import scores
from hubtune_plugins.classification.forms import LabelForm, remembered

if TYPE_CHECKING:
    from torch import Tensor


class One:
    """One label a row."""

    name: LabelKind = "single_label"
    problem = "single_label_classification"
    metric = "accuracy"

    def __init__(self, options: Any, form: LabelForm | None = None) -> None:
        self.options, self.form = options, form or LabelForm.of(None, options)

    def dataset_info(
        self, splits: Mapping[str, Rows], name: Callable[[list[str]], dict[str, str]]
    ) -> dict[str, Any]:
        """The label space of the rows by split. name: what the raw labels are called, as a dict, given the labels."""
        raw = self.readable(splits)
        labels = label_space(raw)
        if set(labels) <= set(self.form.names):
            labels = sorted(labels, key=self.form.names.index)  # as their numbers are
        names = name(labels)
        ordered = list(dict.fromkeys(names[label] for label in labels))
        counts = Counter(names[label] for row in raw["train"] for label in row)
        return {"labels": ordered, "names": names, "counts": {name: counts[name] for name in ordered}}

    def labels(self, value: Any) -> list[str]:
        """The labels in a cell, as strings."""
        return [self.form.one(value)]

    def readable(self, splits: Mapping[str, Rows]) -> dict[str, Sequence[Any]]:
        """The labels of every row, by split. Raises DataError with the rows whose cells do not hold labels of this form."""
        for split, rows in splits.items():
            values = column_values(rows, "label")
            if len(values) and isinstance(values[0], str | int | float) and self.form.name in ("plain", "separator", "whole"):
                continue  # every scalar is a label
            bad: dict[int, DataError] = {}
            for index, value in enumerate(values):
                try:
                    self.labels(value)
                except DataError as error:
                    bad[index] = error
            if bad:
                first = next(iter(bad.values()))
                raise DataError(f"{row_numbers(list(bad), rows)} of {split}: {first.message}", hint=first.hint)
        read = remembered(self.labels)
        return {split: column_values(rows, "label", make=read) for split, rows in splits.items()}

    def ids(self, value: Any, names: Any, config: Any) -> list[Any]:
        """The ids of the labels in a cell."""
        return [label_id(names.get(label, label), config) for label in self.labels(value)]

    def target(self, value: Any, names: Any, config: Any) -> Any:
        return self.ids(value, names, config)[0]

    def losses(self, logits: Tensor, targets: Any) -> Any:
        """The loss of each row, (rows,), of `logits` (rows, labels)."""
        from torch.nn import functional as F

        return F.cross_entropy(logits, targets, reduction="none")

    def answers(self, logits: Tensor, names: Any) -> list[Any]:
        return [self.answer(dict(zip(names, row, strict=True))) for row in logits.softmax(-1).tolist()]

    def answer(self, probabilities: Any) -> dict[str, Any]:
        best = max(probabilities, key=probabilities.__getitem__)
        return {"label": best, "probability": probabilities[best], "probabilities": probabilities}

    def gold(self, value: Any, names: Any, config: Any) -> Any:
        ids = self.ids(value, names, config)
        return self.answer({name: float(index in ids) for name, index in config.label2id.items()})

    def compared(
        self, predictions: Sequence[Prediction], values: Any, names: Any, config: Any
    ) -> tuple[Any, Any]:
        """The right ids and the given ones, row by row."""
        given = [[config.label2id[name] for name in self.given(prediction)] for prediction in predictions]
        return [self.ids(value, names, config) for value in values], given

    def given(self, prediction: Prediction) -> list[str]:
        """The labels of a prediction; of one that abstains, its likeliest."""
        label = prediction["label"]
        return [max(prediction["probabilities"], key=prediction["probabilities"].__getitem__) if label is None else label]

    def references(
        self, predictions: Sequence[Prediction], values: Any, names: Any, config: Any
    ) -> tuple[Any, Any]:
        """The right answers and the given ones, as scikit-learn's metrics take them."""
        gold, found = self.compared(predictions, values, names, config)
        return [g[0] for g in gold], [f[0] for f in found]

    def score(
        self, predictions: Sequence[Prediction], values: Any, names: Any, config: Any
    ) -> dict[str, float]:
        gold, found = self.compared(predictions, values, names, config)
        return scores.class_scores([g[0] for g in gold], [f[0] for f in found], len(config.label2id))

    def report(
        self, predictions: Sequence[Prediction], values: Any, names: Any, config: Any
    ) -> dict[str, Any]:
        gold, found = self.compared(predictions, values, names, config)
        return scores.class_table([g[0] for g in gold], [f[0] for f in found], list(config.label2id))


class Several(One):
    """Any number of labels a row, as a list or in one string."""

    name = "multi_label"
    problem = "multi_label_classification"
    metric = "f1_micro"

    def dataset_info(
        self, splits: Mapping[str, Rows], name: Callable[[list[str]], dict[str, str]]
    ) -> dict[str, Any]:
        if self.form.name != "positions":
            return super().dataset_info(splits, name)
        counts = Counter(label for labels in self.readable(splits)["train"] for label in labels)
        names = list(self.form.names)
        return {"labels": names, "names": dict(zip(names, names, strict=True)), "counts": {one: counts[one] for one in names}}

    def labels(self, value: Any) -> list[str]:
        return self.form.several(value)

    def target(self, value: Any, names: Any, config: Any) -> list[Any]:
        ids = self.ids(value, names, config)
        return [float(index in ids) for index in range(len(config.label2id))]

    def losses(self, logits: Tensor, targets: Any) -> Any:
        from torch.nn import functional as F

        return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none").mean(1)

    def answers(self, logits: Tensor, names: Any) -> list[Any]:
        return [self.answer(dict(zip(names, row, strict=True))) for row in logits.sigmoid().tolist()]

    def answer(self, probabilities: Any) -> dict[str, Any]:
        threshold = 0.5 if self.options.threshold == "auto" else self.options.threshold
        given = [name for name, value in probabilities.items() if value >= threshold]
        return {"labels": given, "probabilities": probabilities}

    def given(self, prediction: Prediction) -> list[str]:
        labels: list[str] = prediction["labels"]
        return labels

    def references(
        self, predictions: Sequence[Prediction], values: Any, names: Any, config: Any
    ) -> tuple[Any, Any]:
        gold, found = self.compared(predictions, values, names, config)
        classes = len(config.label2id)
        return scores.spread(gold, classes).tolist(), scores.spread(found, classes).tolist()

    def score(
        self, predictions: Sequence[Prediction], values: Any, names: Any, config: Any
    ) -> dict[str, float]:
        return scores.several_scores(*self.compared(predictions, values, names, config), len(config.label2id))

    def report(
        self, predictions: Sequence[Prediction], values: Any, names: Any, config: Any
    ) -> dict[str, Any]:
        gold, found = (scores.spread(ids, len(config.label2id)) for ids in self.compared(predictions, values, names, config))
        return scores.class_table(gold, found, list(config.label2id))


class Number(One):
    """A number a row."""

    name = "regression"
    problem = "regression"
    metric = "pearson"

    def dataset_info(
        self, splits: Mapping[str, Rows], name: Callable[[list[str]], dict[str, str]]
    ) -> dict[str, Any]:
        for split, rows in splits.items():
            refuse_words(column_values(rows, "label"), split)
        return {}

    def target(self, value: Any, names: Any, config: Any) -> Any:
        return number(value)

    def losses(self, logits: Tensor, targets: Any) -> Any:
        from torch.nn import functional as F

        return F.mse_loss(logits.squeeze(-1), targets.to(logits.dtype), reduction="none")

    def answers(self, logits: Tensor, names: Any) -> list[Any]:
        return [{"value": value} for value in logits.squeeze(-1).tolist()]

    def gold(self, value: Any, names: Any, config: Any) -> dict[str, Any]:
        return {"value": number(value)}

    def references(
        self, predictions: Sequence[Prediction], values: Any, names: Any, config: Any
    ) -> tuple[Any, Any]:
        return [number(value) for value in values], [p["value"] for p in predictions]

    def score(
        self, predictions: Sequence[Prediction], values: Any, names: Any, config: Any
    ) -> dict[str, float]:
        return scores.number_scores([number(value) for value in values], [p["value"] for p in predictions])

    def report(
        self, predictions: Sequence[Prediction], values: Any, names: Any, config: Any
    ) -> dict[str, Any]:
        return {}


KINDS: dict[str, type[One]] = {kind.name: kind for kind in (One, Several, Number)}


def kind_in(config: Any) -> Any:
    """Return what kind of labels a model was made for, by name; one, where it does not say."""
    return next((name for name, kind in KINDS.items() if kind.problem == getattr(config, "problem_type", None)), "single_label")


def number(value: Any) -> float:
    """A label that is a number. Raises DataError for one that is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"the label {value!r} is no number, and the model gives numbers.") from None


def refuse_words(values: Any, split: str) -> None:
    """Refuse values that are no numbers, by their rows."""
    import math

    def fine(value: Any) -> Any:
        try:
            return math.isfinite(float(value))
        except (TypeError, ValueError):
            return False

    bad = [index for index, value in enumerate(values) if not fine(value)]
    if bad:
        raise DataError(f"{values[bad[0]]!r} is not a number: {row_numbers(bad, values)} of {split}.",
                        hint="For labels instead: --set task.kind=single_label")
