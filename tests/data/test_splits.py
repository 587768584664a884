"""Rows by role: the right columns, nothing missing, and a validation split that is cut fairly and the same again."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import examined
import pytest
from hubtune_plugins.text.text_classification import ClassificationOptions, TextClassification

from hubtune import Column
from hubtune.data import columns as columns_module
from hubtune.data import splits
from hubtune.errors import DataError, RecipeError
from hubtune.recipe import DataConfig

COLUMNS = TextClassification.columns
Rows = list[dict[str, Any]]


def balanced(count: int = 40, labels: str = "abcd") -> Rows:
    return [{"text": f"number {index} of them", "label": labels[index % len(labels)]} for index in range(count)]


def train_rows(source: Any, seed: int = 0, **part: Any) -> splits.DataSplits:
    made = DataConfig(**part)
    return splits.training_splits(splits.load_splits(made, COLUMNS, source), made, COLUMNS, seed)[0]


def refusal(source: Any, **part: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        train_rows(source, **part)
    return caught.value


def inspected(source: Any, **options: Any) -> dict[str, Any]:
    """What the task finds in the rows, before they are cut."""
    return TextClassification(ClassificationOptions(**options)).validate_data(splits.load_splits(DataConfig(), COLUMNS, source).splits)


# ---------------------------------------------------------------------------------------------------- columns


@pytest.mark.parametrize(("names", "mapping"), [
    (("text", "label"), {"text": "text", "label": "label"}),
    (("Review", "Sentiment"), {"text": "Review", "label": "Sentiment"}),
    (("id", "sentence1", "sentence2", "score"), {"text": "sentence1", "text_pair": "sentence2", "label": "score"}),
    (("TEXT ", "label name"), {"text": "TEXT ", "label": "label name"}),
    (("label", "text", "sentence"), {"text": "text", "label": "label"}),  # the first known name wins, wherever it is
])
def test_columns_are_found_by_name(names: tuple[str, ...], mapping: dict[str, str]) -> None:
    source = [dict.fromkeys(names, f"some words {index % 2}") for index in range(8)]
    assert train_rows(source).columns == mapping


def test_only_the_columns_of_the_task_stay_under_their_roles() -> None:
    source = [{"id": "x", "body": row["text"], "intent": row["label"], "when": 3} for row in balanced()]
    data = train_rows(source)
    assert data.splits["train"].column_names == ["text", "label"]
    assert data.columns == {"text": "body", "label": "intent"}


def test_the_only_column_of_words_is_the_text() -> None:
    source = [{"what was said": row["text"], "code": "x1", "label": row["label"]} for row in balanced()]
    assert train_rows(source).columns["text"] == "what was said"


def test_a_chosen_column_is_taken_also_when_names_are_swapped() -> None:
    source = [{"text": row["label"], "label": row["text"]} for row in balanced()]
    data = train_rows(source, columns={"text": "label", "label": "text"})
    assert set(data.splits["train"]["label"]) == set("abcd")


def test_a_chosen_column_that_is_not_there_is_answered_with_the_near_one() -> None:
    error = refusal(balanced(), columns={"text": "txet"})
    assert error.message == "there is no column 'txet' (for text). Did you mean 'text'? Columns: text, label."
    assert error.hint == "Choose one with: --set data.text=COLUMN"


def test_a_role_that_the_task_has_not_is_answered_with_the_near_one() -> None:
    assert "no role 'lable' in this task. Did you mean 'label'?" in refusal(balanced(), columns={"lable": "label"}).message


def test_data_without_a_text_or_label_column_is_refused_with_its_columns() -> None:
    error = refusal([{"text": row["text"], "other": "words that go on"} for row in balanced()])
    assert error.message.startswith("no column for the label. Columns: text, other;")
    assert error.hint == "Choose it with: --set data.label=COLUMN"
    ambiguous = refusal([{"one thing": "some words", "two thing": "more words", "label": "a"}] * 8)
    assert ambiguous.message.startswith("no column for the text.")


def test_a_split_without_a_column_is_refused() -> None:
    error = refusal({"train": balanced(), "test": [{"words": "no text here", "label": "a"}]})
    assert error.message == "the test split has no column text; its columns: words, label."


def test_there_must_be_a_train_split() -> None:
    assert refusal({"test": balanced()}).message == "there is no train split; splits: test."


def test_class_labels_become_their_names() -> None:
    from datasets import ClassLabel, Dataset

    made = Dataset.from_list([{**row, "label": "abcd".index(row["label"])} for row in balanced()])
    source = made.cast_column("label", ClassLabel(names=["w", "x", "y", "z"]))
    assert set(train_rows(source).splits["train"]["label"]) == set("wxyz")


# ------------------------------------------------------------------------------------------------------- gaps


@pytest.mark.parametrize(("gap", "role", "message"), [
    ("", "text", "2 of 40 rows have an empty text: rows 3, 18 of train."),
    ("  \t\n", "text", "2 of 40 rows have an empty text: rows 3, 18 of train."),
    (None, "text", "2 of 40 rows have an empty text: rows 3, 18 of train."),
    ("", "label", "2 of 40 rows have a missing label: rows 3, 18 of train."),
    (None, "label", "2 of 40 rows have a missing label: rows 3, 18 of train."),
])
def test_empty_texts_and_missing_labels_are_refused_with_their_rows(gap: Any, role: str, message: str) -> None:
    source = balanced()
    source[2] = {**source[2], role: gap}
    source[17] = {**source[17], role: gap}
    assert examined.refusal(source).message == message


def test_gaps_of_the_test_split_are_refused_too_and_all_gaps_are_counted() -> None:
    test = [{"text": "", "label": "a"}] * 20
    assert examined.refusal({"train": balanced(), "test": test}).message == (
        "20 of 20 rows have an empty text: rows 1, 2, 3, 4, 5, 6, 7, 8 and 12 more of test."
    )


def test_a_gap_in_a_file_has_the_row_that_the_file_has(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\none,a\ntwo,b\n,a\nfour,b\nfive,\n", encoding="utf-8")
    empty, missing = examined.refusal(path).problems
    assert empty.message == "1 of 5 rows have an empty text: row 3 (line 4) of train."
    assert missing.message == "1 of 5 rows have a missing label: row 5 (line 6) of train."


def test_a_gap_has_its_row_also_under_a_limit() -> None:
    source = balanced(200)
    for row in source[100:]:
        row["text"] = ""
    limited = examined.refusal(source, data__limit=20).message
    assert limited == examined.refusal(source).message
    assert limited.startswith("100 of 200 rows have an empty text: rows 101, 102, ")


def test_texts_that_look_like_missing_values_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in [
        ("NA", "None"), ("null", "NA"), ("None", "null"), ("007", "None"), ("nan", "NA"), ("-", "null")] * 2), encoding="utf-8")
    data = train_rows(path)
    found = [row for split in data.splits.values() for row in split]
    assert {row["text"] for row in found} == {"NA", "null", "None", "007", "nan", "-"}
    assert {row["label"] for row in found} == {"None", "NA", "null"}


# ------------------------------------------------------------------------------------------ the validation split


@pytest.mark.parametrize("seed", range(8))
def test_held_out_rows_are_disjoint_and_each_label_stays_in_train(seed: int) -> None:
    draw = random.Random(seed)
    labels = [draw.choice("aaaaaaabbbc") for _ in range(draw.randint(8, 300))] + ["rare"]
    source = [{"text": f"row {index} of it", "label": label} for index, label in enumerate(labels)]
    share = draw.choice([0.05, 0.1, 0.3, 0.5])
    data = train_rows(source, seed=seed, validation=share)
    train, held = data.splits["train"], data.splits["validation"]
    assert sorted([*train["text"], *held["text"]]) == sorted(row["text"] for row in source)
    assert set(train["label"]) == set(labels)
    assert len(held) == max(1, round(share * len(labels)))
    whole = Counter(labels)
    for label, count in Counter(held["label"]).items():
        assert count <= share * whole[label] + len(whole)
    for label, count in whole.items():
        assert Counter(held["label"])[label] >= min(int(share * count), count - 1)


def test_held_out_rows_depend_on_the_seed_alone() -> None:
    random.seed(1)
    first = train_rows(balanced(), seed=3).splits["validation"]["text"][:]
    random.seed(2)
    assert first == train_rows(balanced(), seed=3).splits["validation"]["text"][:]
    assert first != train_rows(balanced(), seed=4).splits["validation"]["text"][:]


@pytest.mark.parametrize("seed", range(4))
def test_folds_hold_out_each_row_once_with_its_copies_and_every_label(seed: int) -> None:
    draw = random.Random(seed)
    source = [{"text": f"row {index} of it", "label": draw.choice("aaab")} for index in range(40)]
    source += [source[draw.randrange(40)] for _ in range(10)]
    draw.shuffle(source)
    held = [train_rows(source, seed=seed, folds=5, fold=fold) for fold in range(5)]
    parts = [list(data.splits["validation"]["text"]) for data in held]
    assert sorted(text for part in parts for text in part) == sorted(row["text"] for row in source)
    for data, part in zip(held, parts, strict=True):
        assert not set(part) & set(data.splits["train"]["text"])
        assert abs(len(part) - 10) <= 2
        assert abs(data.splits["validation"]["label"][:].count("b") - len([row for row in source if row["label"] == "b"]) / 5) <= 2.5
        assert data.checks["validation"].startswith("held out from train (fold")
    assert parts[0] == list(train_rows(source, seed=seed, folds=5, fold=0).splits["validation"]["text"])


def test_folds_of_given_validation_rows_and_of_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="there is a validation split"):
        train_rows({"train": balanced(), "validation": balanced()}, folds=5)
    with pytest.raises(DataError, match="too few for 50 folds"):
        train_rows(balanced(), folds=50, fold=0)
    for settings, message in (({"folds": 1}, "at least 2"), ({"fold": 0}, "not set"), ({"folds": 3, "fold": 3}, "folds are 0 to 2")):
        with pytest.raises(RecipeError, match=message):
            train_rows(balanced(), **settings)


def test_a_given_validation_split_is_kept() -> None:
    held = [{"text": "held out words", "label": "a"}]
    data = train_rows({"train": balanced(), "validation": held})
    assert (len(data.splits["train"]), list(data.splits["validation"]["text"])) == (40, ["held out words"])
    assert data.checks["validation"] == "given"
    assert list(data.splits) == ["train", "validation"]


def test_held_out_rows_are_recorded() -> None:
    assert train_rows(balanced(), seed=7).checks["validation"] == "held out from train (0.1, seed 7)"


def test_validation_rows_may_come_from_another_source(tmp_path: Path) -> None:
    (tmp_path / "dev.csv").write_text("text,label\nfrom elsewhere,a\n", encoding="utf-8")
    data = train_rows(balanced(), validation=str(tmp_path / "dev.csv"))
    assert (len(data.splits["train"]), list(data.splits["validation"]["text"])) == (40, ["from elsewhere"])


def test_validation_rows_from_another_source_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    found = set()
    for text in ("from elsewhere", "changed since"):
        (tmp_path / "dev.csv").write_text(f"text,label\n{text},a\n", encoding="utf-8")
        found.add(train_rows(balanced(), validation=str(tmp_path / "dev.csv")).fingerprint)
    assert len(found) == 2


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, -0.1, float("nan")])
def test_a_share_is_between_none_and_all(share: float) -> None:
    assert "data.validation must be a share between 0 and 1" in refusal(balanced(), validation=share).message


def test_too_few_rows_are_refused() -> None:
    assert refusal(balanced(3)).message == "3 rows are too few for training and validation; at least 4 are needed."


@pytest.mark.parametrize("written", [str, float])
def test_numeric_labels_are_held_out_without_stratification(written: Any) -> None:
    source = [{"text": f"row {index} of it", "label": written(index / 7 + 0.01)} for index in range(50)]
    assert len(train_rows(source).splits["validation"]) == 5


# ------------------------------------------------------------------------------------- limits and duplicates


def test_a_limit_draws_rows_by_the_seed_in_their_order() -> None:
    source = {"train": balanced(100), "test": balanced(30)}
    data = train_rows(source, limit=20)
    assert {split: len(found) for split, found in data.splits.items()} == {"train": 18, "validation": 2, "test": 20}
    again = train_rows(source, limit=20)
    assert data.splits["test"]["text"][:] == again.splits["test"]["text"][:]
    order = [int(text.split()[1]) for text in data.splits["test"]["text"]]
    assert order == sorted(order)
    assert order != list(range(20))
    assert data.splits["test"]["text"][:] != train_rows(source, seed=1, limit=20).splits["test"]["text"][:]


def test_duplicates_between_splits_are_counted_and_warned_of() -> None:
    train = balanced()
    source = {"train": train, "validation": [*train[:3], {"text": "new words", "label": "a"}],
              "test": [{**train[5], "label": "b"}, {"text": "new words", "label": "b"}]}
    data, _, heard = examined.loaded(source)
    assert data.checks["duplicates"] == {"validation/train": 3, "test/train": 1, "test/validation": 1}
    leaks = [text for text in heard.warnings if "leakage" in text]
    assert leaks[0] == ("3 rows also appear in train, so scores will be optimistic (leakage): rows 1, 2, 3 of validation. "
                        "To mend it: --set 'data.clean=[\"drop-leaked\"]'")
    assert len(leaks) == 3


def test_rows_without_duplicates_give_no_warning() -> None:
    data, _, heard = examined.loaded(balanced(80), data__validation=0.2)
    assert data.checks["duplicates"] == {"validation/train": 0}
    assert heard.warnings == []


# ------------------------------------------------------------------------- what the task finds in the labels


def test_one_label_a_row_is_a_label_space_in_natural_order() -> None:
    source = [{"text": f"row {index} of it", "label": f"class {index % 3 + 9}"} for index in range(30)]
    dataset_info = inspected(source)
    assert (dataset_info["kind"], dataset_info["labels"]) == ("single_label", ["class 9", "class 10", "class 11"])
    assert sum(dataset_info["counts"].values()) == 30


@pytest.mark.parametrize(("values", "labels"), [
    ([0, 1], ["0", "1"]), ([True, False], ["false", "true"]), (["007", "7"], ["007", "7"]), ([-1, 0, 1], ["-1", "0", "1"]),
])
def test_labels_of_every_type_are_words(values: list[Any], labels: list[str]) -> None:
    source = [{"text": f"row {index} of it", "label": values[index % len(values)]} for index in range(24)]
    assert sorted(inspected(source)["labels"]) == sorted(labels)


@pytest.mark.parametrize(("cells", "options"), [
    ([["red", "big"], ["red"], []], {}), (["red|big", "red", "big"], {"kind": "multi_label"}),
    (["red;big", "red", "big"], {"kind": "multi_label", "separator": ";"}),
])
def test_several_labels_come_as_lists_or_with_a_separator(cells: list[Any], options: dict[str, Any]) -> None:
    source = [{"text": f"row {index} of it", "label": cells[index % len(cells)]} for index in range(24)]
    dataset_info = inspected(source, **options)
    assert (dataset_info["kind"], dataset_info["labels"]) == ("multi_label", ["big", "red"])


@pytest.mark.parametrize("values", [[0.5, 1.5], ["0.5", "1.50", "-2.0"]])
def test_labels_with_a_decimal_point_are_numbers(values: list[Any]) -> None:
    source = [{"text": f"row {index} of it", "label": values[index % len(values)]} for index in range(24)]
    dataset_info = inspected(source)
    assert (dataset_info["kind"], "labels" in dataset_info) == ("regression", False)
    assert "task.kind=single_label" in dataset_info["notes"][0]


def test_a_number_that_is_none_is_refused() -> None:
    source = {"train": [{"text": f"row {i} of it", "label": f"{i}.5"} for i in range(8)],
              "validation": [{"text": "a row", "label": "1.5"}, {"text": "b row", "label": "much"}]}
    with pytest.raises(DataError, match=r"'much' is not a number: row 2 of validation"):
        inspected(source)


def test_a_number_that_is_none_has_the_row_that_the_file_has() -> None:
    source = [{"text": f"row {index} of it", "label": f"{index % 5}.5"} for index in range(60)]
    source[50]["label"] = "much"
    with pytest.raises(DataError, match=r"'much' is not a number: row 51 of train"):
        inspected(source, kind="regression")


def test_a_label_that_only_the_test_split_has_is_refused_with_its_rows() -> None:
    test = [{"text": "words one", "label": "a"}, {"text": "words two", "label": "new"}, {"text": "words 3", "label": "new"}]
    with pytest.raises(DataError, match=r"labels that do not occur in the train split: 'new' in rows 2, 3 of test"):
        inspected({"train": balanced(), "test": test})


def test_labels_in_two_spellings_are_refused() -> None:
    with pytest.raises(DataError, match="labels that differ only in case"):
        inspected([{**row, "label": row["label"].upper() if index % 3 else row["label"]} for index, row in enumerate(balanced())])


def test_a_single_label_is_refused() -> None:
    with pytest.raises(DataError, match="classification needs at least two labels; found 'a'"):
        inspected(balanced(labels="a"))


# --------------------------------------------------------------------------------- rows to predict and evaluate


def test_rows_to_predict_need_no_labels_and_labels_may_be_missing() -> None:
    found = splits.evaluation_split([{"text": "some words"}], None, COLUMNS, {}, needs_labels=False)
    assert found.splits["rows in memory"].column_names == ["text"]
    splits.evaluation_split([{"text": "some words", "label": ""}], None, COLUMNS, {}, needs_labels=False)
    with pytest.raises(DataError, match="an empty text: row 1"):
        splits.evaluation_split([{"text": "", "label": "a"}], None, COLUMNS, {}, needs_labels=False)


def test_rows_to_evaluate_need_labels() -> None:
    with pytest.raises(DataError, match="no column for the label"):
        splits.evaluation_split([{"text": "some words"}], None, COLUMNS, {}, needs_labels=True)
    with pytest.raises(DataError, match="a missing label: rows 1, 2"):
        splits.evaluation_split([{"text": "some words", "label": None}] * 2, None, COLUMNS, {"label": "label"}, needs_labels=True)


def test_the_columns_of_the_training_are_remembered_and_looked_for_again_when_gone() -> None:
    chosen = {"text": "what", "label": "mark"}
    for source in ([{"what": "some words", "mark": "a", "text": "other words"}], [{"text": "some words", "label": "a"}]):
        found = splits.evaluation_split(source, None, COLUMNS, chosen, needs_labels=True)
        assert found.splits["rows in memory"][0] == {"text": "some words", "label": "a"}


def test_the_test_split_is_taken_first_and_a_wrong_split_is_refused() -> None:
    source = {"train": balanced(), "test": balanced(8)}
    assert list(splits.evaluation_split(source, None, COLUMNS, {}, True).splits) == ["test"]
    assert list(splits.evaluation_split(source, "train", COLUMNS, {}, True).splits) == ["train"]
    held_out = {"train": source["train"], "validation": source["test"]}
    assert list(splits.evaluation_split(held_out, None, COLUMNS, {}, True).splits) == ["validation"]
    assert list(splits.evaluation_split({"train": source["train"]}, None, COLUMNS, {}, True).splits) == ["train"]
    with pytest.raises(DataError, match="there is no split 'dev'; splits: train, test"):
        splits.evaluation_split(source, "dev", COLUMNS, {}, True)


@pytest.mark.parametrize(("file", "called"), [
    ("more.csv", "more.csv"), ("folder/more.csv", "folder"), ("folder/train.csv", "train"), ("train.csv", "train"), ("folder/test.csv", "test"),
])
def test_data_without_splits_keeps_its_name(file: str, called: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / file).write_text("text,label\ngood film,a\n,b\n", encoding="utf-8")
    source = (tmp_path / file).parent if "folder" in file else tmp_path / file
    with pytest.raises(DataError, match=f"an empty text: row 2 of {called}."):
        splits.evaluation_split(source, None, COLUMNS, {}, needs_labels=True)
    (tmp_path / file).write_text("text,label\ngood film,a\nbad film,b\n", encoding="utf-8")
    assert list(splits.evaluation_split(source, None, COLUMNS, {}, True).splits) == [called]
    with pytest.raises(DataError, match="there is no split 'dev'") as caught:
        splits.evaluation_split(source, "dev", COLUMNS, {}, True)
    assert (caught.value.hint == "Leave --split out to use all rows.") is (called in ("more.csv", "folder"))
    assert list(splits.evaluation_split(source, None if called == "test" else "train", COLUMNS, {}, True).splits) == [
        "test" if called == "test" else "train"]  # who names it has his way


def test_a_column_that_is_never_needed_may_be_missing() -> None:
    columns = (Column("text", ("text",)), Column("pair", ("pair",), needed="never"))
    assert columns_module.find_columns(splits.sources.load(balanced()).splits["train"], columns, {}) == {"text": "text"}


def test_the_reviews_that_come_along_are_sound(reviews: Path) -> None:
    data, _, heard = examined.loaded(reviews)
    assert sum(len(found) for found in data.splits.values()) == 480
    assert data.checks["duplicates"] == {"validation/train": 0}
    assert heard.warnings == []


def test_class_labels_inside_lists_and_dicts_become_their_names() -> None:
    from datasets import ClassLabel, Dataset, Features, List, Value

    kinds = ClassLabel(names=["cell", "plate"])
    features = Features({"objects": List({"category": kinds, "area": Value("int64")}), "tags": List(kinds)})
    made = Dataset.from_list([{"objects": [{"category": 1, "area": 3}, {"category": 0, "area": 4}], "tags": [0, -1]}], features)
    found = columns_module.rename_to_roles(made, {"objects": "objects", "tags": "tags"}, "train")[0]
    assert found == {
        "objects": [{"category": "plate", "area": 3}, {"category": "cell", "area": 4}], "tags": ["cell", None],
    }
