"""A data set that is streamed: the same rows, each once an epoch, and a run that goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import hubtune
from hubtune import Callbacks, DataError, HubtuneError, column_values
from hubtune.data.encoding import encode
from hubtune.data.streaming import Stream, StreamWindows
from hubtune.testing.hub import LoopbackHub
from hubtune.training.loop import Loop

COUNT = 110
ROWS = [{"text": f"a {word} day {row}", "label": row % 2} for row in range(COUNT) for word in [["lovely", "dull"][row % 2]]]
SETS: dict[str, Any] = {
    "data.stream": True, "data.buffer": 30, "data.validation": 0.1, "train.batch_size": 10, "train.epochs": 2, "train.verify": False,
    "train.save_minutes": 0.0, "train.evals_per_epoch": 1,
}


def csv_of(rows: list[dict[str, Any]]) -> bytes:
    return b"text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows).encode()


def parquet_of(rows: list[dict[str, Any]], place: Path) -> bytes:
    from datasets import ClassLabel, Dataset

    Dataset.from_list(rows).cast_column("label", ClassLabel(names=["no", "yes"])).to_parquet(place / "made.parquet", batch_size=20)
    return (place / "made.parquet").read_bytes()


@pytest.fixture(scope="module")
def data(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Data sets of the Hub, by kind: one file of text; several shards of parquet whose labels have names."""
    place = tmp_path_factory.mktemp("parquet")
    hub.add_dataset("tiny/text", {"train.csv": csv_of(ROWS), "test.csv": csv_of(ROWS[:6])})
    shards = {f"data/train-{shard:05d}-of-00002.parquet": parquet_of(part, place) for shard, part in enumerate((ROWS[:50], ROWS[50:]))}
    hub.add_dataset("tiny/shards", shards)
    hub.add_dataset("tiny/gaps", {"train.csv": csv_of([*ROWS[:3], {"text": " ", "label": 1}, *ROWS])})
    return {"text": "tiny/text", "shards": "tiny/shards", "gaps": "tiny/gaps"}


def streamed(repo: str, **more: Any) -> Any:
    from hubtune_plugins.text.text_classification import TextClassification

    from hubtune.data import sources, splits
    from hubtune.data.checks.scan import scan
    from hubtune.recipe import DataConfig

    part = DataConfig(source=repo, stream=True, **more)
    data = splits.load_splits(part, TextClassification.columns)
    assert isinstance(sources.load(repo, stream=True).splits["train"], Stream)
    scan(data.splits["train"], TextClassification.columns)
    return data, splits.training_splits(data, part, TextClassification.columns, 0)[0]


@pytest.mark.parametrize("kind", ["text", "shards"])
def test_a_stream_has_the_rows_of_the_data_set(kind: str, data: dict[str, str]) -> None:
    names = ["0", "1"] if kind == "text" else ["no", "yes"]
    expected = [{"text": row["text"], "label": names[row["label"]] if kind == "shards" else row["label"]} for row in ROWS]
    found, split = streamed(data[kind])
    train = found.splits["train"]
    assert list(train) == expected
    assert (len(train), train[0], train[3]) == (COUNT, expected[0], expected[3])
    assert [train.read_range(start, 7) for start in (0, 7, 50, 3)] == [expected[start : start + 7] for start in (0, 7, 50, 3)]
    held, rest = list(split.splits["validation"]), split.splits["train"]
    assert [*held, *rest] == expected
    assert len(held) == round(0.1 * COUNT)
    assert rest.read_range(2, 4) == expected[len(held) + 2 : len(held) + 6]
    assert split.checks["validation"] == "the first 11 rows of train"


def test_one_pass_counts_and_keeps_the_labels(data: dict[str, str], hub: LoopbackHub) -> None:
    found, _ = streamed(data["text"])
    before = len(hub.requests)
    labels = column_values(found.splits["train"], "label")
    assert [list(labels), len(labels)] == [[row["label"] for row in ROWS], COUNT]
    assert len(hub.requests) == before


def test_gaps_are_found_in_the_stream(data: dict[str, str]) -> None:
    with pytest.raises(DataError, match=f"1 of {COUNT + 4} rows have an empty text: row 4 of train"):
        hubtune.check("text-classification", model="tiny/bert", data=data["gaps"], set={"data.stream": True})


def test_what_is_not_on_the_hub_is_not_streamed(reviews: Path) -> None:
    for source in (reviews, ROWS):
        with pytest.raises(DataError, match=r"data\.stream applies to data sets of the Hub only"):
            hubtune.check("text-classification", model="tiny/bert", data=source, set={"data.stream": True})


def test_a_place_is_found_again(data: dict[str, str]) -> None:
    """From what a checkpoint holds, which is JSON, without reading what came before."""
    _, one = streamed(data["shards"])
    _, other = streamed(data["shards"])
    one.splits["train"].read_range(60, 10)
    mark = json.loads(json.dumps(one.splits["train"].marked))
    assert mark["at"] == 71  # eleven rows are held out
    other.splits["train"].restore(mark)
    assert other.splits["train"].reader.at == 71
    assert other.splits["train"].read_range(60, 10) == one.splits["train"].read_range(60, 10)


class Stopped(Exception):
    """Raised in a run."""


class Kept(Callbacks):
    """Remembers the rows of every step; stops the run after so many."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop: int | None = None) -> None:
        self.rows: list[list[int]] = []
        own = Loop.train_step

        def train_step(loop: Loop) -> None:
            rows = loop.sampler.rows(loop.progress.step)
            self.rows.append(sorted(loop.context.train.first + int(row) for row in rows))
            own(loop)
            if loop.progress.step == stop:
                loop.save()
                loop.saver.wait()
                raise Stopped

        monkeypatch.setattr(Loop, "train_step", train_step)


def weights(run: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run.folder / "model" / "model.safetensors")
    return found


def test_a_run_goes_through_the_stream_and_goes_on_where_it_was(
    data: dict[str, str], tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    arguments: dict[str, Any] = {"model": tiny_model("bert"), "data": data["shards"], "set": SETS}
    with pytest.MonkeyPatch.context() as patch:
        seen = Kept(patch)
        whole = hubtune.train("text-classification", out=tmp_path / "whole", **arguments)
    assert whole.record["steps"] == 20
    assert whole.record["data"]["rows"] == {"train": 99, "validation": 11}
    assert "30 consecutive rows" in whole.record["data"]["checks"]["stream"]
    assert whole.record["acceleration"]["feature_cache"]["used"] is False
    for epoch in (seen.rows[:10], seen.rows[10:]):
        assert sorted(row for rows in epoch for row in rows) == list(range(99))
        for step, rows in enumerate(epoch):
            assert {row // 30 for row in rows} == {step // 3}  # a window is used up before the next is opened
    assert seen.rows[:10] != seen.rows[10:]
    for stop in (5, 14):
        out = tmp_path / f"stopped-{stop}"
        with pytest.MonkeyPatch.context() as patch:
            Kept(patch, stop)
            with pytest.raises(Stopped):
                hubtune.train("text-classification", out=out, **arguments)
        with pytest.MonkeyPatch.context() as patch:
            rest = Kept(patch)
            resumed = hubtune.resume(out)
        assert rest.rows == seen.rows[stop:]
        assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
        assert resumed.record["metrics"] == whole.record["metrics"]


def test_windows_have_the_examples_of_all_rows(data: dict[str, str], tiny_model: Callable[..., Path]) -> None:
    from hubtune_plugins.text.text_classification import TextClassification

    from hubtune.hub.origin import local_origin
    from hubtune.models import configuration

    found, split = streamed(data["text"])
    task, origin = TextClassification(), local_origin(tiny_model("bert"))
    base = configuration.open_base(origin, task)
    base = configuration.apply_setup(base, task.model_config(task.validate_data(found.splits), base))
    train = split.splits["train"]
    windows = StreamWindows(task, train, base, 8, 40, (0, encode(task, train.read_range(0, 40), base, 8)))
    whole = encode(task, list(train), base, 8)
    parts = [windows.open(number) for number in range(3)]
    assert [example for part in parts for example in part.examples] == list(whole.examples)
    assert np.concatenate([part.first + part.owner for part in parts]).tolist() == whole.owner.tolist()
    assert parts[1].example_rng(0, 0, 3).row == 43


def test_a_task_that_asks_the_untouched_model_is_not_streamed(hub: LoopbackHub, tiny_model: Callable[..., Path]) -> None:
    rows = "".join(json.dumps({"prompt": f"day {row}", "chosen": "lovely", "rejected": "dull"}) + "\n" for row in range(20))
    hub.add_dataset("tiny/pairs", {"train.jsonl": rows.encode()})
    with pytest.raises(HubtuneError, match="cannot be streamed"):
        hubtune.check("preference", model=tiny_model("gpt2"), data="tiny/pairs", set={"data.stream": True})
