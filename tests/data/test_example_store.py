"""Examples come back from Arrow as they were, from memory and from files, here and in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy import Partial

from hubtune import Base, SamplingTask, enumerate_rows
from hubtune.acceleration.embedding_pruning import find_ids
from hubtune.data.dataset import EncodedDataset, Examples
from hubtune.data.encoding import encode, encode_for_training
from hubtune.data.example_store import BATCH_BYTES, MOST_TABLES, ExampleStore
from hubtune.data.row_batches import ROW_BATCH_SIZE

PLAIN: list[dict[str, Any]] = [
    {"input_ids": [101, 7, 102], "target": 1}, {"input_ids": [], "target": -100}, {"input_ids": [2**40], "target": 70_000},
    {"input_ids": [5], "target": None}, {"input_ids": None, "target": 2.5}, {"input_ids": [1, 2, None], "target": True},
    {"nothing": None, "truth": True, "both": [True, False, None], "empty": [[], None, []], "text": ""},
    {"choices": [{"input_ids": [1, 2]}, {"input_ids": [3]}], "nested": [[1], [], [2, 3, None]], "boxes": [[0.1, 0.2]]},
    {"text": "na\u00efve \U0001f600", "bytes": b"\x00\xff", "inner": {"a": {"b": [1.5, -0.0, 1e-300, float("inf")]}}},
    {"numbers": [2**63 - 1, -(2**63)], "small": [-1, 2**16], "wide": 2**31},
    {"array": np.arange(6, dtype=np.float32).reshape(2, 3), "point": np.array(2.5), "none": np.zeros((0, 2), np.int8)},
]
ONLY_IN_MEMORY: list[dict[str, Any]] = [
    {"path": Path("a/b")}, {"large": 2**70}, {"surrogate": "\ud800"}, {"mixed": [1, 2.5, "a"]}, {"odd": {1: 2}}, {},
    {"scalar": np.int16(-3)}, {"keys": [{"a": 1}, {"b": 2}]}, {"dtypes": [np.zeros(2)]}, {"flags": [True, 2]},
    {"tensor": torch.arange(4).reshape(2, 2), "half": torch.ones(2, dtype=torch.bfloat16)},
]


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray | torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    return bool(one == other) and repr(one) == repr(other)


def stored(values: list[Any], memory_limit: int, at_once: int = 3) -> ExampleStore:
    """Examples in a store, appended a few at a time."""
    store = ExampleStore(memory_limit)
    for start in range(0, len(values), at_once):
        store.extend(values[start : start + at_once])
    store.close()
    return store


@pytest.mark.parametrize("memory_limit", [10**9, 200, 0])
@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_examples_come_back_with_their_types(memory_limit: int, at_once: int) -> None:
    values = [*PLAIN, *ONLY_IN_MEMORY, *PLAIN[::-1], *PLAIN[:3] * 20, *ONLY_IN_MEMORY]
    store = stored(values, memory_limit, at_once)
    assert (store.scratch is None) == (memory_limit == 10**9)
    assert len(store) == len(values)
    for example, expected in zip(store, values, strict=True):
        assert same(example, expected), expected
    assert same(store[-1], values[-1])
    assert same(store[2:5], values[2:5])
    with pytest.raises(IndexError):
        store[len(values)]


@pytest.mark.parametrize("memory_limit", [10**9, 0])
def test_plain_examples_are_all_in_arrow_and_tuples_come_back_as_lists(memory_limit: int) -> None:
    store = stored([*PLAIN, {"places": [None, (0, 4), (5, 9)], "pair": (1, 2)}], memory_limit)
    assert all(table.schema is not None for table in store.tables)
    assert store[-1] == {"places": [None, [0, 4], [5, 9]], "pair": [1, 2]}


def test_a_changed_example_does_not_change_the_store() -> None:
    store = stored([*PLAIN, *ONLY_IN_MEMORY], 10**9)
    for example in store:
        example["input_ids"] = "changed"
    assert all(map(same, store, [*PLAIN, *ONLY_IN_MEMORY]))


def test_more_schemas_than_there_is_room_for_stay_in_memory() -> None:
    values = [{f"name {number}": number} for number in range(2 * MOST_TABLES)] * 2
    store = stored(values, 0)
    assert len(store.tables) == MOST_TABLES + 1
    assert list(store) == values


def test_token_ids_take_two_bytes_where_they_fit() -> None:
    store = stored([{"input_ids": [number, 65_000]} for number in range(256)] * 20, 0)
    assert {column.dtype for _, column in store.flat_columns()} == {np.dtype(np.uint16)}
    values = [*[{"input_ids": [1]}] * 3, *[{"input_ids": [70_000]}] * 3, *[{"input_ids": [-1]}] * 3, *[{"input_ids": [2**40]}] * 3]
    store = stored(values, 0)
    assert {column.dtype for _, column in store.flat_columns()} == {np.dtype(np.uint16), np.dtype(np.int32), np.dtype(np.int64)}
    assert list(store) == values


def test_many_small_appends_make_few_record_batches() -> None:
    store = stored([{"input_ids": list(range(500))}] * 10_000, 0, at_once=10)
    assert len(store.tables[0].starts) <= 2 + store.memory // BATCH_BYTES
    assert store[9_999] == {"input_ids": list(range(500))}


def test_the_files_are_removed_with_the_store() -> None:
    store = stored([{"input_ids": [1, 2, 3]}], 0)
    assert store.scratch is not None
    folder = store.scratch.path
    assert folder.is_dir()
    del store
    assert not folder.exists()


def test_token_ids_are_found_in_the_columns() -> None:
    values = [*PLAIN, {"texts": [{"input_ids": [4]}, {"input_ids": [5, 6]}], "labels": [9]}, {"input_ids": np.array([[11], [12]])}]
    found = find_ids(Examples(stored(values, 0)))
    assert found == {101, 7, 102, 2**40, 1, 2, 3, 4, 5, 6, 11, 12}


# ------------------------------------------------------------------------------------------------ encoded in row batches


class Words(SamplingTask[Any], Partial):
    """A word is a token. Examples hold the number of their row; texts that begin alike are a group."""

    def encode(self, rows: Any, base: Base) -> Iterator[list[dict[str, Any]]]:
        for number, row in enumerate_rows(rows):
            words = [int(word) for word in row["text"].split()][: base.max_length]
            yield [{"input_ids": words, "row": number}] * (2 if words[0] == 3 else 1)

    def num_tokens(self, example: Any) -> int:
        return len(example["input_ids"])

    def sampling_key(self, example: Any) -> int | None:
        return example["input_ids"][0] or None


BASE = Base("org/name", "0" * 40, None, None)
ROWS = [{"text": " ".join([str(row % 5), *map(str, range(row % 7))])} for row in range(2 * ROW_BATCH_SIZE + 10)]


@pytest.mark.parametrize("limit", [None, 4])
def test_row_batches_are_encoded_as_the_whole(limit: int | None) -> None:
    from datasets import Dataset

    task, base = Words(), Base("org/name", "0" * 40, None, None, limit)
    expected = [list(found) for found in task.encode(ROWS, base)]
    for rows in (ROWS, Dataset.from_list(ROWS)):
        encoded = encode(task, rows, BASE, limit)
        assert [[encoded.examples[item] for item in items] for items in encoded.examples_by_row()] == expected
        assert encoded.owner.tolist() == [row for row, found in enumerate(expected) for _ in found]
        assert encoded.sizes.tolist() == [task.num_tokens(example) for example in encoded.examples]
        assert encoded.lengths is not None
        assert encoded.lengths.tolist() == encoded.sizes.tolist()
    trained, said = encode_for_training(task, ROWS, BASE, limit, None)
    assert list(trained.examples) == list(encoded.examples)
    assert said["rows_cut"] == (0 if limit is None else sum(row % 7 + 1 > 4 for row in range(len(ROWS))))


def test_examples_are_sampled_within_their_group() -> None:
    encoded = encode(Words(), ROWS[:30], BASE, 4)
    for item, example in enumerate(encoded.examples):
        first = example["input_ids"][0]
        others = [other for other in encoded.examples if first and other["input_ids"][0] == first]
        assert list(encoded.example_rng(0, 0, item).others) == others
        assert encoded.example_rng(0, 0, item).row == encoded.owner[item]


def test_another_process_opens_what_was_saved(tmp_path: Path) -> None:
    encoded = encode(Words(), ROWS, BASE, 4)
    encoded.save(tmp_path / "one")
    script = ("import json, sys, pathlib; from hubtune.data.dataset import EncodedDataset; found = EncodedDataset.open(pathlib.Path(sys.argv[1]))\n"
              "print(json.dumps([list(found.examples), found.owner.tolist(), found.sizes.tolist(), found.rows, found.groups.tolist()]))")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "one")], capture_output=True, text=True, check=True)
    assert encoded.groups is not None
    assert json.loads(done.stdout) == [
        list(encoded.examples), encoded.owner.tolist(), encoded.sizes.tolist(), encoded.rows, encoded.groups.tolist()]
    again = EncodedDataset.open(tmp_path / "one")
    again.save(tmp_path / "two")  # files are linked
    assert list(EncodedDataset.open(tmp_path / "two").examples) == list(encoded.examples)


def test_examples_in_memory_alone_cannot_be_saved(tmp_path: Path) -> None:
    for examples in (Examples(stored([{"image": Path("a.png")}], 10**9)), [{"input_ids": [1]}]):
        encoded = EncodedDataset(examples, np.zeros(1, np.int64), np.ones(1, np.int64), 1)
        with pytest.raises(ValueError, match=r"no Arrow type"):
            encoded.save(tmp_path)
        assert not (tmp_path / "dataset.json").exists()


def test_reference_outputs_are_merged_into_the_examples() -> None:
    encoded = encode(Words(), ROWS[:20], BASE, None)
    count = len(encoded.examples)
    store = stored([{"reference": [float(item)]} for item in reversed(range(count))], 0)
    merged = encoded.with_reference(store, np.arange(count)[::-1])
    assert list(merged.examples) == [{**example, "reference": [float(item)]} for item, example in enumerate(encoded.examples)]
    assert merged.select_rows([3]).examples[0]["reference"] == [float(encoded.examples_by_row()[3][0])]
    assert find_ids(merged.examples) == find_ids(encoded.examples)


def test_a_file_that_is_too_short_is_noticed(tmp_path: Path) -> None:
    encode(Words(), ROWS, BASE, None).save(tmp_path)
    largest = max(tmp_path.glob("*.arrow"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-8])
    with pytest.raises((ValueError, OSError)):
        EncodedDataset.open(tmp_path)
