"""Label forms: what the cells of a label column are taken for, said aloud, with the setting that says otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import examined
import pytest
from hubtune_plugins.classification.cells import read_list
from hubtune_plugins.classification.labelled import LabelOptions
from hubtune_plugins.text.text_classification import TextClassification

import hubtune
from hubtune import Base, DataError
from hubtune.models import configuration


def rows(cells: list[Any], count: int = 24) -> list[dict[str, Any]]:
    return [{"text": f"row {index} of it", "label": cells[index % len(cells)]} for index in range(count)]


def csv_file(folder: Path, cells: list[str], count: int = 24) -> Path:
    import csv

    path = folder / "train.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([row["text"], row["label"]] for row in rows(cells, count))
    return path


def found(source: Any, task: str = "text-classification", **settings: Any) -> tuple[str, list[str], str]:
    """Kind, labels, and the first sentence about them."""
    report = examined.examined(source, task, **settings)
    notes = report.dataset_info.get("notes") or [""]
    return report.dataset_info["kind"], report.dataset_info.get("labels", []), notes[0]


# ----------------------------------------------------------------------------------------- 0/1 vectors


@pytest.mark.parametrize("cells", [
    [[1, 0, 1], [0, 0, 0], [0, 1, 1]], [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
    [[True, False, True], [False, False, False], [True, True, False]], [["1", "0", "1"], ["0", "0", "0"], ["1", "1", "0"]],
])
def test_vectors_of_zeros_and_ones_are_one_position_for_each_class(cells: list[Any]) -> None:
    kind, labels, note = found(rows(cells))
    assert (kind, labels) == ("multi_label", ["label_0", "label_1", "label_2"])
    assert "0/1 vectors of 3 positions" in note
    assert "task.label_form=names" in note
    assert "data.label_names" in note


def test_positions_get_the_names_of_the_recipe_in_their_order() -> None:
    source = rows([[1, 0, 1], [0, 0, 0], [0, 1, 1]])
    assert found(source, data__label_names=["z", "b", "a"])[1] == ["z", "b", "a"]
    with pytest.raises(DataError, match="lists of 3 zeros and ones, and there are 2 names"):
        examined.loaded(source, data__label_names=["z", "b"])


def test_positions_get_the_names_of_a_class_label_feature() -> None:
    from datasets import ClassLabel, Dataset, Features, List, Value

    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=["joy", "anger", "fear"]))})
    made = Dataset.from_list([{"text": row["text"], "labels": row["label"]} for row in rows([[1, 0, 1], [0, 0, 0], [0, 1, 0]])],
                             features=features)
    assert found(made)[:2] == ("multi_label", ["joy", "anger", "fear"])
    ids = Dataset.from_list([{"text": row["text"], "labels": row["label"]} for row in rows([[0, 2], [1], [0, 1]])], features=features)
    assert found(ids)[:2] == ("multi_label", ["anger", "fear", "joy"])


def test_a_vector_becomes_its_labels_and_an_encoded_target() -> None:
    report = examined.examined(rows([[1, 0, 1], [0, 0, 0], [0, 1, 1]]), data__label_names=["z", "b", "a"])
    task = TextClassification(LabelOptions())
    assert list(task.row_labels(rows([[1, 0, 1]], 1), report.dataset_info)) == [["z", "a"]]
    base = base_with(["LABEL_0", "LABEL_1"])
    base = configuration.apply_setup(base, task.model_config(json.loads(json.dumps(report.dataset_info)), base))
    assert base.config.label2id == {"z": 0, "b": 1, "a": 2}
    assert task.with_target({}, {"label": [1, 0, 1]}, base)["target"] == [1.0, 0.0, 1.0]
    with pytest.raises(DataError, match="is no list of 3 zeros and ones"):
        task.with_target({}, {"label": [1, 0]}, base)


class FakeTokenizer:
    """Has a padding token, so that the task leaves it alone."""

    pad_token = "[PAD]"
    pad_token_id = 0


def test_a_vector_of_another_length_in_another_split_is_refused_with_its_row() -> None:
    source = {"train": rows([[1, 0, 1], [0, 1, 0]]), "validation": rows([[1, 0, 1], [0, 1]], 4)}
    error = examined.refusal(source)
    assert "rows 2, 4 of validation" in error.message
    assert "no list of 3 zeros and ones" in error.message


@pytest.mark.parametrize(("cells", "message"), [
    ([[1, 0, 1], [1, 0], [0, 0, 0]], "of 2, 3 positions, are no names of labels"),
    ([[0.2, 0.8], [0.9, 0.1]], "a list of fractions"),
])
def test_lists_that_are_neither_vectors_nor_names_are_refused(cells: list[Any], message: str) -> None:
    error = examined.refusal(rows(cells))
    assert message in error.message
    assert "of train" in error.message


@pytest.mark.parametrize(("cells", "labels"), [([[0], [1], [0, 1]], ["0", "1"]), ([[0], [1]], ["0", "1"]), ([[3, 1], [2]], ["1", "2", "3"])])
def test_lists_of_ids_stay_names(cells: list[Any], labels: list[str]) -> None:
    assert found(rows(cells))[:2] == ("multi_label", labels)


def test_a_class_without_a_row_is_kept_and_warned_of() -> None:
    report = examined.examined(rows([[1, 0, 0], [0, 1, 0], [1, 1, 0]])).report
    assert [finding.message for finding in report.findings if finding.kind == "absent-labels"] == [
        "labels that no row of train has: 'label_2'."]


# ------------------------------------------------------------------------------------ lists as text


@pytest.mark.parametrize(("text", "labels"), [
    ("['a', 'b']", ["a", "b"]), ('["a", "b"]', ["a", "b"]), ("('a', 'b')", ["a", "b"]), ("{'b', 'a'}", ["a", "b"]), ("[]", []),
    ("set()", []), ("[1, 0, 1]", [1, 0, 1]), ("[1 0 1]", [1, 0, 1]), ("[1. 0. 1.]", [1.0, 0.0, 1.0]), ("['a' 'b']", ["a", "b"]),
    ("['a'\n 'b']", ["a", "b"]), ('["it\'s", "b"]', ["it's", "b"]), (" [true, false] ", [True, False]),
])
def test_texts_that_hold_a_list_are_read(text: str, labels: list[Any]) -> None:
    assert read_list(text) == labels


@pytest.mark.parametrize("text", [
    "[deleted]", "a", "", "[", "[[1], [0]]", "{'a': 1}", "[None]", "['a', b]", "[" * 5000 + "]" * 5000, "[" + "1," * 6000 + "1]", "(1)",
    "[__import__('os')]", "[1 ... 0]",
])
def test_other_texts_are_no_list(text: str) -> None:
    assert read_list(text) is None


@pytest.mark.parametrize(("cells", "labels"), [
    (["['a', 'b']", "['a']", "[]"], ["a", "b"]), (['["a", "b"]', '["a"]'], ["a", "b"]), (["['a' 'b']", "['a']"], ["a", "b"]),
    (["[1, 0, 1]", "[0, 1, 1]"], ["label_0", "label_1", "label_2"]), (["[1 0 1]", "[0 1 1]"], ["label_0", "label_1", "label_2"]),
])
def test_lists_in_a_csv_are_several_labels(cells: list[str], labels: list[str], tmp_path: Path) -> None:
    kind, names, note = found(csv_file(tmp_path, cells))
    assert (kind, names) == ("multi_label", labels)
    assert cells[0] in note
    kind, names, _ = found(csv_file(tmp_path, cells), task__kind="single_label")
    assert (kind, sorted(names)) == ("single_label", sorted(cells))


def test_a_column_of_lists_and_words_is_asked_about(tmp_path: Path) -> None:
    error = examined.refusal(csv_file(tmp_path, ["['a', 'b']", "['a']", "b"], 6))
    assert error.message == "some labels are lists and others are not, such as 'b': rows 3, 6 (lines 4, 7) of train."
    assert "task.kind=single_label" in str(error.hint)


# --------------------------------------------------------------------------------------- separators


@pytest.mark.parametrize(("cells", "labels"), [
    (["a|b", "a", "c|a", "b"], ["a", "b", "c"]), (["a;b", "a", "b"], ["a", "b"]), (["a, b", "a", "b"], ["a", "b"]),
    (["a|b", "b|c", "a|c"], ["a", "b", "c"]), (["red | big", "red", "big"], ["big", "red"]),
])
def test_a_separator_divides_labels_whose_parts_recur(cells: list[str], labels: list[str]) -> None:
    kind, names, note = found(rows(cells))
    assert (kind, names) == ("multi_label", labels)
    assert repr(cells[0]) in note
    assert "task.kind=single_label" in note
    assert found(rows(cells), task__kind="single_label")[0] == "single_label"


@pytest.mark.parametrize("cells", [
    ["World", "Science|Tech", "Sports"], ["yes;no", "maybe", "never"], ["Paris, France", "Bonn, Germany", "Rome, Italy"],
    ["Home|Kitchen", "Electronics|TV", "Electronics|Radio"], ["a|", "b"],
])
def test_labels_whose_parts_do_not_recur_stay_whole(cells: list[str]) -> None:
    kind, names, note = found(rows(cells))
    assert (kind, sorted(names)) == ("single_label", sorted(cells))
    assert ("task.kind=multi_label" in note) is ("|" in "".join(cells) or ";" in "".join(cells))


def test_the_separator_may_be_chosen() -> None:
    assert found(rows(["a+b", "a", "b"]), task__kind="multi_label", task__separator="+")[:2] == ("multi_label", ["a", "b"])
    assert found(rows(["a;b", "c;d", "e"]), task__kind="multi_label")[:2] == ("multi_label", ["a", "b", "c", "d", "e"])


# ------------------------------------------------------------------------------------ whole numbers


@pytest.mark.parametrize("cells", [[0.0, 1.0], ["0.0", "1.0"], ["0.", "1."]])
def test_whole_numbers_of_few_values_are_classes(cells: list[Any]) -> None:
    kind, labels, note = found(rows(cells))
    assert (kind, labels) == ("single_label", ["0", "1"])
    assert "task.kind=regression" in note
    assert found(rows(cells), task__kind="regression")[0] == "regression"


@pytest.mark.parametrize("cells", [[0.0, 0.5, 1.0], ["0.0", "2.5"], [float(number) for number in range(24)]])
def test_fractions_and_many_whole_numbers_are_learnt_as_numbers(cells: list[Any]) -> None:
    kind, _, note = found(rows(cells))
    assert kind == "regression"
    assert "task.kind=single_label" in note


def test_numbered_classes_get_the_names_of_the_recipe() -> None:
    for cells in ([0, 1, 2], ["0", "1", "2"], [0.0, 1.0, 2.0]):
        assert found(rows(cells), data__label_names=["low", "mid", "high"])[1] == ["low", "mid", "high"]
    with pytest.raises(DataError, match=r"data\.label_names names the classes 0 to 1, and the labels hold 2"):
        examined.loaded(rows([0, 1, 2]), data__label_names=["low", "mid"])
    with pytest.raises(DataError, match="the labels hold ham, spam"):
        examined.loaded(rows(["ham", "spam"]), data__label_names=["low", "mid"])


def test_sentiment_reads_whole_numbers_too() -> None:
    assert found(rows([0.0, 1.0]), "sentiment")[1] == ["negative", "positive"]


def test_a_missing_number_is_a_missing_label() -> None:
    source = [*rows([0.0, 1.0]), {"text": "a last row", "label": float("nan")}]
    assert examined.refusal(source).message == "1 of 25 rows have a missing label: row 25 of train."


def test_an_object_is_no_label() -> None:
    with pytest.raises(DataError, match="have an object as label") as caught:
        examined.examined(rows([{"name": "a"}, {"name": "b"}]))
    assert "label.name" in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["auto", "single_label", "multi_label"])
@pytest.mark.parametrize(("label", "what"), [([{"name": "a"}], "an object"), ([["a"]], "a list")])
def test_lists_of_objects_or_lists_are_no_labels(kind: str, label: Any, what: str) -> None:
    error = examined.refusal([{"text": f"row {n}", "label": label} for n in range(12)], task__kind=kind)
    assert f"is {what}, not a name or a number" in error.message
    assert "rows 1, 2, 3" in error.message


def test_labels_are_taken_from_a_field_of_listed_objects() -> None:
    source = [{"text": f"row {n}", "label": [{"name": "ab"[n % 2]}]} for n in range(12)]
    assert examined.loaded(source, data__label="label.name")[1]["labels"] == ["a", "b"]


# ------------------------------------------------------------------------------- the base's own labels


def base_with(own: list[str]) -> Base:
    """A base model whose head has these labels, without its weights."""
    from transformers import BertConfig

    config = BertConfig(id2label=dict(enumerate(own)), label2id={label: index for index, label in enumerate(own)})
    return Base("tiny", "0", config, FakeTokenizer())


def configured(cells: list[str], own: list[str], **options: Any) -> tuple[Any, Any, dict[str, Any]]:
    task, base = TextClassification(LabelOptions(**options)), base_with(own)
    dataset_info = task.validate_data({"train": rows(list(cells))})
    return task, configuration.apply_setup(base, task.model_config(dataset_info, base)), dataset_info


def test_labels_in_another_spelling_keep_the_order_of_the_base() -> None:
    own = ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]
    task, base, dataset_info = configured(["entailment", "neutral", "contradiction"], own)
    assert list(base.config.id2label.values()) == own
    assert task.with_target({}, {"label": "entailment"}, base)["target"] == 2
    assert task.label_counts(dataset_info, base) == dict.fromkeys(own, 8)
    assert "its names, their order and its trained head are kept" in str(
        configuration.describe_head(own, dataset_info["labels"], own))


def test_class_weights_follow_the_spelling_of_the_base() -> None:
    task, _, _ = configured(["a", "a", "b"], ["B", "A"], class_weights="balanced")
    assert task.weights == pytest.approx([1.5, 0.75])


def test_other_labels_get_a_new_head_which_is_said() -> None:
    _, base, dataset_info = configured(["ham", "spam"], ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"])
    labels = list(base.config.id2label.values())
    assert labels == ["ham", "spam"]
    said = configuration.describe_head(["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], dataset_info["labels"], labels)
    assert str(said).endswith("the head for ham, spam is new.")
    assert configuration.describe_head([], ["ham", "spam"], labels) is None


def test_labels_of_a_base_that_are_no_texts_are_taken_as_texts(tiny_model: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model("bert"), tmp_path / "bert"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["BertForSequenceClassification"], "id2label": {"0": False, "1": "yes"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    source = [{"text": f"row {n}", "label": "yes" if n % 2 else "no"} for n in range(16)]
    assert hubtune.check("text-classification", model=folder, data=source, out=tmp_path / "run")["facts"]["labels"] == ["no", "yes"]
