"""Dotted paths into objects, what is not used, and objects where a task takes a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import examined
import pytest

from hubtune.data import splits
from hubtune.errors import DataError

ROWS = [{"id": n, "meta": {"source": "web", "tags": ["a", "b"][: n % 2 + 1]}, "content": {"title": f"title {n}", "body": f"some words {n}"},
         "answers": [{"text": "one"}, {"text": f"two {n}"}], "note": {"label": ["yes", "no"][n % 2]}} for n in range(12)]


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("in_file", [True, False])
def test_paths_lead_into_objects_and_the_rest_is_named(tmp_path: Path, in_file: bool) -> None:
    source = str(written(tmp_path, ROWS)) if in_file else ROWS
    data, _, heard = examined.loaded(source, data__text="content.body", data__label="note.label")
    assert data.columns == {"text": "content.body", "label": "note.label"}
    assert sorted(data.splits["train"]["text"][:] + data.splits["validation"]["text"][:]) == sorted(f"some words {n}" for n in range(12))
    assert set(data.splits["train"]["label"]) == {"yes", "no"}
    assert data.unused_columns == ["id", "meta", "content.title", "answers"]
    assert "columns not used: id, meta, content.title, answers" in heard.info
    assert data.as_record()["unused_columns"] == data.unused_columns


def test_lists_of_labels_and_of_objects_on_a_path(tmp_path: Path) -> None:
    data, facts, _ = examined.loaded(str(written(tmp_path, ROWS)), data__text="content.body", data__label="meta.tags")
    assert facts["labels"] == ["a", "b"]
    assert sorted(map(len, [*data.splits["train"]["label"], *data.splits["validation"]["label"]])) == [1] * 6 + [2] * 6
    from hubtune.data import sources
    from hubtune.data.formats import dotted_paths

    rows = sources.load(ROWS).splits["train"]
    assert dotted_paths.add_columns(rows, ["answers.text"])["answers.text"][3] == ["one", "two 3"]


def test_an_object_as_text_is_refused_by_row_with_the_paths_into_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        examined.loaded(str(written(tmp_path, ROWS)), data__text="content", data__label="note.label")
    assert "12 of 12 rows have an object as text (column 'content'): rows 1, 2," in caught.value.message
    assert "lines 1, 2, 3" in caught.value.message
    assert "Paths: content.title, content.body" in str(caught.value.hint)
    mixed = [{"text": "words and words", "label": "a"}, {"text": {"body": "x"}, "label": "b"}] * 3
    with pytest.raises(DataError, match=r"rows 2, 4, 6 of train \(lines 2, 4, 6 of rows.jsonl\)|'text' is an object in row 2"):
        examined.loaded(str(written(tmp_path, mixed)))


@pytest.mark.parametrize("path", ["content.bdy", "contents.body", "id.x", "content.body.x", "content."])
def test_a_path_that_leads_nowhere_is_refused_with_those_that_lead_somewhere(path: str) -> None:
    with pytest.raises(DataError) as caught:
        examined.loaded(ROWS, data__text=path, data__label="note.label")
    assert f"there is no column '{path}' (for text)" in caught.value.message
    assert "content.body" in caught.value.message


def test_a_column_whose_name_has_a_dot_is_the_column() -> None:
    rows = [{"text.en": f"words {n}", "text": {"en": "other"}, "label": "ab"[n % 2]} for n in range(8)]
    data, _, _ = examined.loaded(rows, data__text="text.en")
    assert data.splits["train"]["text"][0].startswith("words")


def test_objects_that_are_missing_are_missing_values() -> None:
    rows = [{"content": {"body": f"words {n}"} if n else None, "label": "ab"[n % 2]} for n in range(8)]
    assert "1 of 8 rows have an empty text: row 1" in examined.refusal(rows, data__text="content.body").message


def test_evaluation_takes_paths_too() -> None:
    task = examined.registry.load().task(examined.recipe_for("text-classification").task)
    found = splits.evaluation_split(ROWS, None, task.columns, {"text": "content.body", "label": "note.label"}, needs_labels=True)
    assert found.splits["rows in memory"]["text"][0] == "some words 0"


def test_splits_that_are_not_used_are_said(tmp_path: Path) -> None:
    for name in ("train", "test", "gold"):
        rows = "".join(f"{name} words {n},{'ab'[n % 2]}\n" for n in range(8))
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    _, _, heard = examined.loaded(str(tmp_path), data__splits=["train"])
    assert "splits not used: test, gold.csv" in heard.info
    with pytest.raises(DataError, match="there is no split 'validation'"):
        examined.loaded(str(tmp_path), data__splits=["train", "validation"])
