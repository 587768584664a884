"""Sentiment: a text classification whose labels are understood, whatever way the data writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from hubtune import Column, DataError, Rows, Task, hookimpl
from hubtune_plugins.text.text_classification import TextClassification

WORDS = {
    "negative": ("negative", "neg", "bad"),
    "neutral": ("neutral", "neu", "mixed"),
    "positive": ("positive", "pos", "good"),
}
STARS = ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]
SCALES = (
    ({"0", "1"}, {"0": "negative", "1": "positive"}),
    ({"-1", "1"}, {"-1": "negative", "1": "positive"}),
    ({"-1", "0", "1"}, {"-1": "negative", "0": "neutral", "1": "positive"}),
    ({"0", "1", "2"}, {"0": "negative", "1": "neutral", "2": "positive"}),
    ({"1", "2", "3", "4", "5"}, {str(index + 1): name for index, name in enumerate(STARS)}),
)


class Sentiment(TextClassification):
    """Negative, neutral or positive; or one to five stars."""

    contract = 2
    name = "sentiment"
    summary = "negative, neutral or positive (or 0/1, or one to five stars) for a text"
    columns: ClassVar[tuple[Column, ...]] = (
        TextClassification.columns[0],
        Column("label", ("label", "sentiment", "labels", "stars", "rating", "score", "class", "polarity", "label_name",
                         "target", "y"), kind="label", needed="train"),
    )

    def validate_data(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        dataset_info = super().validate_data(splits)
        if dataset_info["kind"] != "single_label":
            raise DataError("sentiment is one label a text.", hint="For a number or several labels: text-classification")
        return dataset_info

    def names_of(self, labels: Any) -> Any:
        words = {label: word for label in labels for word, known in WORDS.items() if label.strip().lower() in known}
        if len(words) == len(labels):
            if len(set(words.values())) < len(labels):
                raise DataError(f"two labels mean one sentiment: {', '.join(labels)}.", hint="Write each one way.")
            return words
        digits = {label: label.strip().lower().removesuffix("s").removesuffix("star").strip() for label in labels}
        for values, names in SCALES:
            if set(digits.values()) <= values:
                return {label: names[digit] for label, digit in digits.items()}
        raise DataError(
            f"labels that are no sentiment: {', '.join(labels[:8])}.",
            hint="Understood are negative / neutral / positive, 0/1, -1/0/1, 0/1/2 and 1-5 stars. "
            "For labels of your own: hubtune train text-classification",
        )


@hookimpl
def hubtune_tasks() -> list[type[Task[Any]]]:
    return [Sentiment]
