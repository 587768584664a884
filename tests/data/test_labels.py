"""Label spaces: natural order, one spelling, and no label that cannot be learnt."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from hubtune import label_space, row_numbers
from hubtune.data.labels import natural_sort_key, normalize_spelling
from hubtune.errors import DataError


def space(train: list[str], **others: list[str]) -> list[str]:
    return label_space({split: [[label] for label in labels] for split, labels in {"train": train, **others}.items()})


@pytest.mark.parametrize("ordered", [
    ["-2", "-1", "0", "1", "2", "10"], ["1", "1.5", "2"], ["1 star", "2 stars", "10 stars"], ["class 2", "class 10"],
    ["ham", "spam"], ["a", "B", "c"], ["v1.2", "v1.10"], ["1", "2", "a", "b"], ["", "x"],
])
def test_labels_are_in_natural_order_whatever_order_the_rows_have(ordered: list[str]) -> None:
    for seed in range(5):
        shuffled = ordered * 2
        random.Random(seed).shuffle(shuffled)
        assert space(shuffled) == ordered
    assert sorted(ordered, key=natural_sort_key) == ordered


def test_the_order_is_the_same_in_every_process() -> None:
    code = "from hubtune import label_space; print(label_space({'train': [[x] for x in ('1', '01', '1.0', 'a7', 'a07')]}))"
    said = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": str(seed)}, capture_output=True, text=True,
                       check=True).stdout for seed in range(4)
    }
    assert len(said) == 1


@pytest.mark.parametrize("twins", [("Spam", "spam"), ("spam", " spam"), ("not  ok", "not ok"), ("café", "cafe\u0301"),
                                   ("ﬁne", "fine"), ("STRASSE", "straße")])
def test_two_spellings_of_a_label_are_refused_with_their_counts(twins: tuple[str, str]) -> None:
    with pytest.raises(DataError, match="differ only in case, spaces or unicode form") as caught:
        space([twins[0], twins[1], twins[1], "other"])
    assert f"'{twins[0]}' (1 rows)" in caught.value.message
    assert f"'{twins[1]}' (2 rows)" in caught.value.message
    assert normalize_spelling(twins[0]) == normalize_spelling(twins[1])


def test_two_spellings_in_different_splits_are_refused_too() -> None:
    with pytest.raises(DataError, match="differ only in case"):
        space(["yes", "no"], test=["Yes", "no"])


def test_a_label_that_only_the_test_split_has_is_refused_with_its_rows() -> None:
    with pytest.raises(DataError) as caught:
        space(["a", "b"], validation=["a"], test=["a", "c", "b", "d", "c"])
    assert caught.value.message == (
        "the test split has labels that do not occur in the train split: 'c', 'd' in rows 2, 4, 5 of test."
    )


def test_a_label_that_only_train_has_is_fine() -> None:
    assert space(["a", "b", "c"], test=["a"]) == ["a", "b", "c"]


@pytest.mark.parametrize("train", [["same", "same"], []])
def test_fewer_than_two_labels_are_refused(train: list[str]) -> None:
    with pytest.raises(DataError, match="classification needs at least two labels") as caught:
        space(train)
    assert "data.label=COLUMN" in str(caught.value.hint)


def test_rows_may_have_several_labels_or_none() -> None:
    assert label_space({"train": [["a", "b"], [], ["c"]], "test": [["c", "a"]]}) == ["a", "b", "c"]


def test_rows_are_counted_from_one() -> None:
    assert row_numbers([0]) == "row 1"
    assert row_numbers([2, 16]) == "rows 3, 17"
    assert row_numbers(range(20)) == "rows 1, 2, 3, 4, 5, 6, 7, 8 and 12 more"
