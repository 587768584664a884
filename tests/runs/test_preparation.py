"""Preparing a run: the record beside what training needs, and rows numbered as in the data."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import toy
from datasets import Dataset

from hubtune import Loss
from hubtune.callbacks import Callbacks
from hubtune.contract import registry
from hubtune.data.data_splits import DataSplits
from hubtune.data.streaming import open_stream
from hubtune.errors import NonFiniteLoss
from hubtune.recipe import Recipe, build
from hubtune.runs import preparation, prepared_data
from hubtune.training.loop import Loop

LONG = {4, 11, 12, 20, 33, 39}
"""Rows, from 0, that are truncated."""
ROWS = [
    {"text": f"row {n} {'so on ' * 20 if n in LONG else 'ends'}", "label": "yes" if n % 2 else "no"}
    for n in range(40)
]


class Infinite(toy.Numbers):
    """Has an infinite loss."""

    def loss(self, outputs: Any, batch: Any) -> Any:
        found = super().loss(outputs, batch)
        return Loss(found.total * float("inf"))


def recipe_of(model: Path, **data: Any) -> Recipe:
    return build({"task": {"name": "text-classification"}, "model": {"id": str(model)},
                  "data": data, "train": {"max_length": 12}})


def test_the_record_before_step_0_is_plain_and_complete(tiny_model: Any) -> None:
    recipe = recipe_of(tiny_model("bert"))
    prepared, record = preparation.prepare(recipe, Callbacks(), ROWS)
    record = json.loads(json.dumps(record))  # as a resumed run reads it
    assert build(record["recipe"]) == recipe
    assert record["settings"] == vars(prepared.settings)
    assert record["base"]["commit"] == prepared.origin.commit
    assert record["data"]["rows"] == {"train": 36, "validation": 4}
    assert [len(prepared.data.row_numbers), len(prepared.data.rows["validation"])] == [36, 4]
    resumed, again = preparation.prepare(recipe, Callbacks(), ROWS, record)
    assert resumed.settings == prepared.settings
    assert json.loads(json.dumps(again)) == record


@pytest.mark.parametrize("data", [{"validation": 0.25}, {"validation": 0.25, "limit": 30}])
def test_truncated_rows_are_numbered_as_in_the_data(tiny_model: Any, data: dict[str, Any]) -> None:
    prepared, record = preparation.prepare(recipe_of(tiny_model("bert"), **data), Callbacks(), ROWS)
    numbers = [int(number) for number in prepared.data.row_numbers]
    held_out = {row["text"] for row in prepared.data.rows["validation"]}
    assert not held_out & {ROWS[number]["text"] for number in numbers}
    expected = [number + 1 for number in numbers if number in LONG]
    assert expected
    assert [row["row"] for row in record["lengths"]["first_rows_cut"]] == expected
    (warning,) = [text for text in record["warnings"] if "are truncated" in text]
    assert [int(number) for number in re.findall(r"row (\d+) \(", warning)] == expected


def test_a_loss_that_is_not_finite_names_its_rows_as_in_the_data(tmp_path: Path) -> None:
    context = toy.make_context(tmp_path / "run", Infinite())
    context = dataclasses.replace(context, row_numbers=range(100, 100 + toy.ROWS))
    with pytest.raises(NonFiniteLoss, match=r"step 0 is inf; its rows: .* of train") as caught:
        toy.run(Loop(context, Callbacks()))
    numbers = [int(number) for number in re.findall(r"\d{3}", caught.value.message)]
    assert numbers
    assert all(101 <= number <= 100 + toy.ROWS for number in numbers)


def test_rows_of_a_stream_are_numbered_from_where_it_begins() -> None:
    stream = open_stream(Dataset.from_list(ROWS).to_iterable_dataset())
    data = DataSplits({"train": stream.row_range(5, 40)}, "stream", "")
    assert list(prepared_data.row_numbers(data)) == list(range(5, 40))


def test_a_strategys_default_length_truncates_as_one_of_the_recipe_does(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.load().strategies["full"], "defaults", {"train.max_length": 12})
    tables = {**recipe_of(tiny_model("bert")).as_dict(), "train": {}}
    _, record = preparation.prepare(build(tables), Callbacks(), ROWS)
    assert record["settings"]["max_length"] == record["lengths"]["max_length"] == 12
    assert record["lengths"]["rows_cut"]


@pytest.mark.parametrize(("config", "says"), [
    ({}, "Raise it with --set train.max_length=N"),
    ({"max_position_embeddings": 12}, "The model takes no more: shorten the rows"),
])
def test_the_warning_about_truncation_names_what_would_help(
    config: dict[str, int], says: str, tiny_model: Any
) -> None:
    _, record = preparation.prepare(recipe_of(tiny_model("bert", **config)), Callbacks(), ROWS)
    (warning,) = [text for text in record["warnings"] if "are truncated at 12" in text]
    assert says in warning
