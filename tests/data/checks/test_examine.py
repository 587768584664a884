"""The report about the data: all problems at once, with rows and lines, and what data.clean makes of them."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import examined
import pytest
from hubtune_plugins.text.text_classification import TextClassification

import hubtune
from hubtune.data import sources, splits
from hubtune.errors import DataError, RecipeError

MESSY = [
    ("a fine room", "Good"), ("two lines\nin a cell", "Good "), ("a cold soup", "Bad"), ("", "Bad"), ("no label here", ""),
    ("a cold soup", "Bad"), ("a fine room", "Bad"), ("the only one", "Rare"), *((f"text {n} of it", ("Good", "Bad")[n % 2]) for n in range(32)),
]
CLEAN = ["strip-labels", "drop-empty", "drop-unlabelled", "drop-duplicates", "drop-conflicts", "drop-rare-labels"]


def written(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    return path


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    return written(tmp_path / "messy.csv", MESSY)


def by_kind(report: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for finding in report.findings:
        found.setdefault(finding.kind, []).append(finding)
    return found


def test_all_problems_are_reported_at_once_with_rows_and_lines(messy: Path) -> None:
    report = examined.examined(messy).report
    kinds = by_kind(report)
    assert [(one.rows, one.lines, one.mend) for one in kinds["empty"]] == [((4,), (6,), ("drop-empty",))]
    assert [(one.rows, one.lines, one.mend) for one in kinds["missing-label"]] == [((5,), (7,), ("drop-unlabelled",))]
    assert "'Good ' (1 rows)" in kinds["labels"][0].message
    assert "row 2 (line 3) of train" in kinds["labels"][0].message
    assert kinds["labels"][0].mend == ("strip-labels",)
    assert [(one.rows, one.lines) for one in kinds["duplicates"]] == [((6,), (8,))]
    assert [(one.count, one.rows) for one in kinds["conflicts"]] == [(2, (1, 7))]
    assert "'Rare'" in kinds["rare-labels"][0].message
    assert report.refused
    assert report.labels["train"] == {"Bad": 19, "Good": 18, "Rare": 1}


def test_the_error_of_a_training_has_all_problems_and_what_mends_them(messy: Path) -> None:
    with pytest.raises(DataError) as caught:
        examined.loaded(messy)
    assert caught.value.message.startswith("3 problems of the data:\n- 1 of 40 rows have an empty text: row 4 (line 6) of train.")
    assert 'data.clean=["drop-empty", "drop-unlabelled", "strip-labels"]' in str(caught.value.hint)
    document = caught.value.as_json()["error"]
    assert (document["kind"], len(document["problems"])) == ("data-error", 3)


def test_rows_with_fewer_cells_than_the_header_are_filled_and_reported(tmp_path: Path) -> None:
    """Of columns that are used, what is missing is an error; of others, a warning remains."""
    path = tmp_path / "rows.csv"
    good = [f"film {n},{'ab'[n % 2]},x" for n in range(20)]
    path.write_text("\n".join(["text,label,note", "one,a", *good]), encoding="utf-8")
    (found,) = by_kind(examined.examined(path).report)["short-rows"]
    assert (found.level, found.count, found.rows, found.lines) == ("warning", 1, (1,), (2,))
    assert "1 row has fewer cells than the header" in found.message
    assert any("1 row has fewer cells" in text for text in examined.loaded(path)[2].warnings)
    path.write_text("\n".join(["text,label,note", *good, "a cut", "line,b,x", "two"]), encoding="utf-8")
    kinds = by_kind(examined.examined(path).report)
    assert (kinds["short-rows"][0].lines, kinds["missing-label"][0].rows) == ((22, 24), (21, 23))
    assert kinds["missing-label"][0].mend == ("drop-unlabelled",)


def test_clean_mends_what_is_named_and_says_what_it_did(messy: Path) -> None:
    data, _, heard = examined.loaded(messy, data__clean=CLEAN)
    kept = [*data.splits["train"]["text"], *data.splits["validation"]["text"]]
    assert len(kept) == len(set(kept)) == 34
    assert {"a fine room", "", "no label here", "the only one"}.isdisjoint(kept)
    assert kept.count("a cold soup") == 1
    done = data.checks["clean"]
    assert [(one["operation"], one["split"], one["rows"]) for one in done] == [
        ("strip-labels", "train", 1), ("drop-empty", "train", 1), ("drop-unlabelled", "train", 1), ("drop-duplicates", "train", 1),
        ("drop-conflicts", "train", 2), ("drop-rare-labels", "train", 1)]
    assert done[1]["text"] == "drop-empty: 1 row without an input dropped (row 4 (line 6) of train)."
    assert all(f"data.clean: {one['text']}" in heard.info for one in done)
    json.dumps(data.checks)


def test_rows_keep_the_numbers_of_the_file_when_others_were_dropped(messy: Path) -> None:
    rows = [*MESSY[:8], ("a last\nlong text", "Badd"), *MESSY[8:]]
    path = written(messy, rows)
    report = examined.examined({"train": [dict(zip(("text", "label"), row, strict=True)) for row in rows],
                                "test": [{"text": "x", "label": "Good"}, {"text": "", "label": "Bad"}, {"text": "z", "label": "new"}]},
                               data__clean=["drop-empty", "drop-unlabelled", "strip-labels"]).report
    assert "'new' in row 3 of test" in report.error().message
    data, _, _ = examined.loaded(path, data__clean=CLEAN)
    numbers = data.row_numbers["train"].tolist()
    texts = [rows[number][0] for number in numbers]
    assert texts == data.splits["train"]["text"][:]


def test_near_equal_spellings_become_the_most_frequent(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", [(f"text {n}", ("Spam", "spam", "ham")[0 if n < 12 else n % 3]) for n in range(40)])
    assert examined.refusal(path).mend == ("merge-label-case",)
    _, dataset_info, _ = examined.loaded(path, data__clean=["merge-label-case"])
    assert dataset_info["labels"] == ["ham", "Spam"]


def test_rows_of_train_that_are_in_test_are_dropped_on_request() -> None:
    train = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(40)]
    source = {"train": train, "test": [*train[3:6], {"text": "new", "label": "a"}]}
    _, _, heard = examined.loaded(source)
    assert any("rows 1, 2, 3 of test" in text and "drop-leaked" in text for text in heard.warnings)
    data, _, heard = examined.loaded(source, data__clean=["drop-leaked"])
    assert data.checks["duplicates"]["test/train"] == 0
    assert len(data.splits["test"]) == 4


def test_duplicates_of_an_evaluation_split_stay() -> None:
    train = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(40)]
    test = [{"text": "new", "label": "a"}, {"text": "new", "label": "a"}]
    data, _, _ = examined.loaded({"train": train, "test": test}, data__clean=["drop-duplicates"])
    assert len(data.splits["test"]) == 2


def test_an_unknown_operation_is_answered_with_the_near_one() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'drop-empty'"):
        examined.recipe_for("text-classification", data__clean=["drop-emtpy"])


def test_rows_to_evaluate_are_spelled_as_in_training_and_unlabelled_ones_left_out() -> None:
    said: list[str] = []
    rows = [{"text": "one", "label": "good "}, {"text": "two", "label": None}, {"text": "three", "label": "Bad"}]
    found = splits.evaluation_split(rows, None, TextClassification.columns, {}, needs_labels=True, known=["Good", "Bad"],
                                    operations=["merge-label-case", "drop-unlabelled"], say=said.append)
    assert found.splits["rows in memory"]["label"][:] == ["Good", "Bad"]
    assert said == ["data.clean: drop-unlabelled: row 2 without a label left out.",
                    "data.clean: the labels of 1 rows are spelled as in training."]
    with pytest.raises(DataError, match="a missing label: row 2"):
        splits.evaluation_split(rows, None, TextClassification.columns, {}, needs_labels=True, known=["Good", "Bad"])


def test_a_tuned_model_evaluates_as_its_data_was_cleaned(messy: Path, tmp_path: Path, tiny_model: Any) -> None:
    heard = examined.Heard()
    run = hubtune.train("text-classification", model=tiny_model("bert"), data=messy, out=tmp_path / "run", callbacks=heard,
                        set={"data.clean": CLEAN, "train.max_steps": 2, "train.verify": False, "train.batch_size": 4})
    kept = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["data"]["checks"]
    assert [one["operation"] for one in kept["clean"]] == CLEAN
    result = run.evaluate([{"text": "a fine room", "label": " good"}, {"text": "more", "label": ""}, {"text": "no", "label": "Bad"}],
                          callbacks=heard)
    assert result["rows"] == 2
    assert any("spelled as in training" in text for text in heard.info)


# ------------------------------------------------------------------------------ splits without labels


@pytest.mark.parametrize("label", [None, "", -1, "-1", "missing"])
def test_a_test_split_without_labels_is_not_scored_which_is_said(label: Any) -> None:
    train = [{"text": f"text {n}", "label": str(n % 2) if isinstance(label, str) else n % 2} for n in range(40)]
    test = [{"text": f"more {n}", **({} if label == "missing" else {"label": label})} for n in range(6)]
    data, _, heard = examined.loaded({"train": train, "test": test})
    assert list(data.splits) == ["train", "validation"]
    assert "the 6 rows of test have no labels: they are not scored." in heard.info
    assert data.checks["unlabelled"] == {"test": 6}


def test_minus_one_is_a_label_where_train_has_it() -> None:
    train = [{"text": f"text {n}", "label": n % 2 * 2 - 1} for n in range(40)]
    data, _, _ = examined.loaded({"train": train, "test": [{"text": "more", "label": -1}] * 3})
    assert len(data.splits["test"]) == 3


def test_a_validation_split_without_labels_is_refused_with_the_reason() -> None:
    train = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(40)]
    error = examined.refusal({"train": train, "validation": [{"text": "more"}] * 3})
    assert error.message == "the 3 rows of validation have no labels, and the best weights are chosen by their score."
    assert "held out from train" in str(error.hint)


def test_some_missing_labels_of_a_test_split_are_refused_by_row() -> None:
    train = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(40)]
    error = examined.refusal({"train": train, "test": [{"text": "x", "label": "a"}, {"text": "y", "label": None}]})
    assert error.message == "1 of 2 rows have a missing label: row 2 of test."


def test_a_test_split_of_another_task_without_targets_is_not_scored() -> None:
    train = [{"source": f"what is {n}?", "target": f"it is {n}"} for n in range(20)]
    data, _, _ = examined.loaded({"train": train, "test": [{"source": "and now?"}] * 3}, "text2text-generation")
    assert data.checks["unlabelled"] == {"test": 3}


# --------------------------------------------------------------------------------------- labels by split


def test_a_label_that_validation_lacks_is_warned_of() -> None:
    train = [{"text": f"text {n}", "label": "abc"[n % 3]} for n in range(30)]
    _, _, heard = examined.loaded({"train": train, "validation": [{"text": "x", "label": "a"}, {"text": "y", "label": "b"}]})
    assert "no row of validation has 'c': its scores say nothing of this label." in heard.warnings


# ----------------------------------------------------------------------------------------------- copies


def test_copies_of_a_row_are_held_out_together_whatever_their_labels() -> None:
    rows = [{"text": f"text {n % 30}" + " " * (n % 2), "label": "ab"[n % 2] if n < 50 else "b"} for n in range(80)]
    for seed in range(6):
        data, _, _ = examined.loaded(rows, train__seed=seed)
        train, held = ({text.strip() for text in data.splits[name]["text"]} for name in ("train", "validation"))
        assert train.isdisjoint(held)
        assert held
        assert len(data.splits["train"]) + len(data.splits["validation"]) == 80


def test_rows_that_are_all_copies_are_split_all_the_same_with_a_warning() -> None:
    rows = [{"text": f"the {'ab'[n % 2]} text", "label": "ab"[n % 2]} for n in range(20)]
    data, _, heard = examined.loaded(rows)
    assert len(data.splits["validation"]) == 2
    assert any("leakage" in text for text in heard.warnings)


def previous_validation(labels: list[str], share: float, seed: int) -> list[int]:
    """The rows that hubtune 0.1 held out, by its own code."""
    groups: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(label, []).append(index)
    draw, wanted = random.Random(f"validation/{seed}"), max(1, round(share * len(labels)))
    held: list[int] = []
    left: list[int] = []
    for label in sorted(groups):
        members = groups[label]
        draw.shuffle(members)
        take = min(int(share * len(members)), len(members) - 1)
        held += members[:take]
        left += members[take:-1]
    draw.shuffle(left)
    return sorted(held + left[: max(0, wanted - len(held))])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.1, 0.33])
def test_rows_without_copies_are_split_as_ever(seed: int, share: float) -> None:
    labels = ["aaabc"[n % 5] for n in range(93)]
    rows = [{"text": f"text {n}", "label": label} for n, label in enumerate(labels)]
    data, _, _ = examined.loaded(rows, train__seed=seed, data__validation=share)
    assert data.row_numbers["validation"].tolist() == previous_validation(labels, share, seed)


# ------------------------------------------------------------------------------------------------ lines


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_the_line_of_a_row_counts_line_breaks_within_cells_and_empty_lines(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('text;label\r\n"one\n\nmore é";a\r\n\r\ntwo;b\r\n"th""ree\n";c\r\nfour;d\r\n'.encode(encoding))
    index = sources.load(path).lines["train"]
    assert index([2, 0]) == [7, 2]
    assert index([3, 1]) == [9, 6]


def test_json_rows_have_lines_and_rows_in_memory_or_of_several_files_have_none(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n', encoding="utf-8")
    (tmp_path / "test.json").write_text('[\n{"a": 1}]', encoding="utf-8")
    found = sources.load(tmp_path).lines
    assert found["train"]([0, 1]) == [1, 3]
    assert found["test"]([0]) == [2]
    (tmp_path / "train_2.jsonl").write_text('{"a": 1}\n', encoding="utf-8")
    assert sources.load(tmp_path).lines["train"]([0]) == []
    assert sources.load([{"a": 1}]).lines == {}

