"""What examples are made of comes back as it was, from memory and from files, here and in another process."""

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

from hubtune import Base, Task, enumerate_rows
from hubtune.acceleration.embedding_pruning import ids_in
from hubtune.data.arrays import Place
from hubtune.data.column_store import FORMS, Values
from hubtune.data.dataset import EncodedDataset, Examples, with_more
from hubtune.data.encoding import encode, encode_for_training
from hubtune.data.row_batches import ROW_BATCH_SIZE

KINDS = [
    {"input_ids": [101, 7, 102], "target": 1}, {"input_ids": [], "target": -100}, {"input_ids": [2**40], "target": 70_000},
    {"nothing": None, "truth": True, "both": [True, False, None], "mixed": [1, 2.5, "a", [b"c"]]},
    {"places": [None, (0, 4), (5, 9), None, 3], "boxes": [(0.1, 0.2, 0.3, 0.4)], "long": tuple(range(20)), "empty": [(), {}, [], ""]},
    {"choices": [{"input_ids": [1, 2]}, {"input_ids": [3]}], "nested": [[1], [], [2, [3, None]]]},
    {"text": "na\u00efve \U0001f600 \ud800", "bytes": b"\x00\xff", "path": Path("a/b"), "large": 2**70, "odd": {1: 2}},
    {"array": np.arange(6, dtype=np.float32).reshape(2, 3), "scalar": np.int16(-3), "point": np.array(2.5), "none": np.zeros((0, 2))},
    {"tensor": torch.arange(4).reshape(2, 2), "half": torch.ones(2, dtype=torch.float16), "brain": torch.ones(2, dtype=torch.bfloat16)},
    {"numbers": [float("inf"), -0.0, 1e-300], "keys": [2**63 - 1, -(2**63)]},
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


def stored(values: list[Any], most: int, piece: int = 3) -> Values:
    """Values in a store; from so many bytes on in files."""
    found = Values(Place(most=most))
    for start in range(0, len(values), piece):
        found.extend(values[start : start + piece])
    found.place.close()
    return found


@pytest.mark.parametrize("most", [10**9, 200, 0])
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_whatever_goes_in_comes_out(most: int, piece: int) -> None:
    values = [*KINDS, *KINDS[::-1], *KINDS[:3] * 20]
    found = stored(values, most, piece)
    assert (found.place.folder is None) == (most == 10**9)
    assert len(found) == len(values)
    assert all(map(same, values, found))
    assert same(found[-1], values[-1])
    assert same(found[2:5], values[2:5])


def test_more_forms_than_there_is_room_for_are_kept_as_they_are() -> None:
    values = [{f"name {number}": number} for number in range(2 * FORMS)] * 2
    assert list(stored(values, 0)) == values


def test_numbers_take_the_room_that_they_need() -> None:
    found = stored([[number] * 10 for number in range(256)] * 20, 0)
    [(_, tokens)] = found.leaves()
    assert tokens.dtype == np.uint8
    wider = stored([[1] * 70_000, [60_000] * 70_000, [-1], [2**40]], 0, piece=1)
    [(_, tokens)] = wider.leaves()
    assert tokens.dtype == np.int64
    assert list(wider) == [[1] * 70_000, [60_000] * 70_000, [-1], [2**40]]


def test_the_files_go_with_the_store() -> None:
    found = stored([[1, 2, 3]], 0)
    folder = found.place.folder
    assert folder is not None
    assert folder.is_dir()
    del found
    assert not folder.exists()


def test_ids_are_found_in_the_arrays() -> None:
    values = [*KINDS, {"texts": [{"input_ids": [4]}, {"input_ids": [5, 6]}], "labels": [9]}, {"input_ids": np.array([[11], [12]])}]
    assert ids_in(Examples(stored(values, 0))) == ids_in(values) == {101, 7, 102, 2**40, 1, 2, 3, 4, 5, 6, 11, 12}


# ------------------------------------------------------------------------------------------------ encoded in pieces


class Words(Task[Any]):
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
def test_pieces_are_encoded_as_the_whole(limit: int | None) -> None:
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


def test_examples_of_a_group_are_drawn_for_each_other() -> None:
    encoded = encode(Words(), ROWS[:30], BASE, 4)
    for item, example in enumerate(encoded.examples):
        first = example["input_ids"][0]
        others = [other for other in encoded.examples if first and other["input_ids"][0] == first]
        assert list(encoded.draw(0, 0, item).others) == others
        assert encoded.draw(0, 0, item).row == encoded.owner[item]


def test_another_process_opens_what_was_saved(tmp_path: Path) -> None:
    encoded = encode(Words(), ROWS, BASE, 4)
    more = stored([{"reference": [float(item)]} for item in range(len(encoded.examples))], 0)
    assert isinstance(encoded.examples, Examples)
    joined = with_more(encoded.examples, Examples(more))
    encoded = EncodedDataset(joined, encoded.owner, encoded.sizes, encoded.rows, encoded.lengths, encoded.groups)
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


def test_what_has_no_flat_form_cannot_be_saved(tmp_path: Path) -> None:
    values = stored([{"image": Path("a.png")}], 10**9)
    encoded = EncodedDataset(Examples(values), np.zeros(1, np.int64), np.ones(1, np.int64), 1)
    with pytest.raises(ValueError, match="no flat form"):
        encoded.save(tmp_path)
    assert not (tmp_path / "encoded.json").exists()


def test_a_file_that_is_too_short_is_noticed(tmp_path: Path) -> None:
    encode(Words(), ROWS, BASE, None).save(tmp_path)
    largest = max(tmp_path.glob("*.flat"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-8])
    with pytest.raises((ValueError, OSError)):
        EncodedDataset.open(tmp_path)
