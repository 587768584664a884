"""From rows to examples: one length, each row once, and what was cut is counted. On a task that counts words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import Partial

from hubtune import Base
from hubtune.data.encoding import (
    describe_truncated_rows,
    encode,
    encode_for_training,
    number_truncated_rows,
)
from hubtune.testing import models as tiny
from hubtune.testing.models import MODEL_TYPES


class Words(Partial):
    """A word is a token; with `windows`, a long row becomes several examples."""

    def __init__(self, windows: bool = False) -> None:
        super().__init__()
        self.windows = windows
        self.seen: list[tuple[int, int | None]] = []

    def encode(self, rows: Any, base: Base) -> Iterator[list[dict[str, Any]]]:
        self.seen.append((len(rows), base.max_length))
        for row in rows:
            words, most = row["text"].split(), base.max_length
            if self.windows and most:
                yield [{"words": words[i : i + most]} for i in range(0, len(words), most)]
            else:
                yield [{"words": words[:most]}]

    def num_tokens(self, example: Any) -> int:
        return len(example["words"])


BASE = Base("org/name", "0" * 40, None, None)


def rows_of(*lengths: int) -> list[dict[str, str]]:
    return [{"text": " ".join(f"w{row}" for _ in range(length))} for row, length in enumerate(lengths)]


def sizes(*lengths: int, wanted: int | None = None, limit: int | None = None) -> tuple[list[int], dict[str, Any]]:
    encoded, said = encode_for_training(Words(), rows_of(*lengths), BASE, wanted, limit)
    return encoded.sizes.tolist(), said


def test_rows_that_fit_are_encoded_once_and_whole() -> None:
    task = Words()
    encoded, said = encode_for_training(task, rows_of(3, 5, 4), BASE, None, 512)
    assert encoded.sizes.tolist() == [3, 5, 4]
    assert task.seen == [(3, None)]
    assert said == {"max_length": 5, "limit": 512, "longest": 5, "median": 4, "rows": 3, "rows_cut": 0, "tokens": 12,
                    "tokens_cut": 0, "first_rows_cut": []}


def test_truncation_at_the_user_s_length_is_counted() -> None:
    found, said = sizes(3, 5, 4, 10, wanted=4)
    assert found == [3, 4, 4, 4]
    assert (said["max_length"], said["rows_cut"], said["tokens_cut"], said["tokens"]) == (4, 2, 7, 22)
    assert said["first_rows_cut"] == [{"row": 1, "length": 5}, {"row": 3, "length": 10}]


def test_the_user_s_length_may_be_more_than_the_rows_have() -> None:
    found, said = sizes(3, 5, wanted=100, limit=512)
    assert (found, said["max_length"], said["rows_cut"]) == ([3, 5], 100, 0)


def test_the_model_s_limit_truncates_beyond_the_user_s_length() -> None:
    for wanted in (None, 100):
        found, said = sizes(3, 50, 4, wanted=wanted, limit=6)
        assert found == [3, 6, 4]
        assert (said["max_length"], said["limit"], said["rows_cut"], said["tokens_cut"]) == (6, 6, 1, 44)


def test_by_default_only_outliers_are_truncated() -> None:
    found, said = sizes(*[10] * 300, 12, 4000, limit=None)
    assert said["max_length"] == 24  # twice the 99th percentile, in eights
    assert (said["rows_cut"], said["tokens_cut"]) == (1, 4000 - 24)
    assert max(found) == 24
    assert sizes(*[10] * 300, 20)[1]["rows_cut"] == 0


def test_only_long_rows_are_encoded_again() -> None:
    task = Words()
    encoded = encode(task, rows_of(3, 9, 4, 8), BASE, 5)
    assert encoded.sizes.tolist() == [3, 5, 4, 5]
    assert task.seen == [(4, None), (2, 5)]
    assert [example["words"][0] for example in encoded.examples] == ["w0", "w1", "w2", "w3"]


def test_several_examples_of_a_row_belong_to_it() -> None:
    encoded = encode(Words(windows=True), rows_of(3, 12, 5), BASE, 5)
    assert encoded.sizes.tolist() == [3, 5, 5, 2, 5]
    assert encoded.owner.tolist() == [0, 1, 1, 1, 2]
    assert list(map(list, encoded.examples_by_row())) == [[0], [1, 2, 3], [4]]
    assert encoded.row_sizes().tolist() == [3, 12, 5]
    assert encoded.rows == 3


def test_rows_of_datasets_are_rows_too() -> None:
    datasets = pytest.importorskip("datasets")
    encoded = encode(Words(), datasets.Dataset.from_list(rows_of(2, 9, 3)), BASE, 4)
    assert encoded.sizes.tolist() == [2, 4, 3]
    assert encoded.sizes.dtype == np.int64


def test_no_rows_make_no_examples() -> None:
    encoded = encode(Words(), [], BASE, 5)
    assert (list(encoded.examples), list(encoded.examples_by_row()), encoded.row_sizes().tolist()) == ([], [], [])


# ---------------------------------------------------------------------------------- with the tokenizers of models


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_texts_of_every_kind_of_model_are_framed_and_truncated(model_type: str, tiny_model: Callable[..., Path]) -> None:
    import transformers
    from hubtune_plugins.text.text_classification import TextClassification

    folder = tiny_model(model_type)
    base = Base("tiny", "", transformers.AutoConfig.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder))
    task = TextClassification()
    rows = [{"text": "Never again."}, {"text": "a lovely day " * 30}, {"text": "day"}]
    whole = encode(task, rows, base, None)
    framed = len(base.processor("")["input_ids"])
    assert framed == {"gpt2": 0, "llama": 1, "t5": 1}.get(model_type, 2)
    assert whole.sizes[2] > framed
    encoded = encode(task, rows, base, 20)
    assert encoded.sizes.tolist() == [whole.sizes[0], 20, whole.sizes[2]]
    if model_type != "gpt2":  # a cut row is framed like the others
        ends = [example["input_ids"][-1] for example in encoded.examples]
        assert (len(set(ends)) == 1) is (model_type != "llama")
    assert max(max(example["input_ids"]) for example in encoded.examples) < base.config.vocab_size


def test_a_tiny_model_is_the_same_again_and_leaves_the_caller_s_generator(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, other, third = (tiny.tiny_model("bert", tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert torch.equal(torch.get_rng_state(), before)
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (one / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()
    assert (one / "model.safetensors").read_bytes() != (third / "model.safetensors").read_bytes()
    assert (one / "model.safetensors").stat().st_size < 500_000
    with pytest.raises(ValueError, match="no tiny model of type 'berd'; there are: bert, "):
        tiny.tiny_model("berd", tmp_path / "d")


def test_truncated_rows_are_named_as_the_data_counts_them() -> None:
    said = sizes(3, 5, 4, 10, wanted=4)[1]
    numbered = number_truncated_rows(said, range(4))
    assert [row["row"] for row in numbered["first_rows_cut"]] == [2, 4]
    assert describe_truncated_rows(numbered) == "row 2 (5), row 4 (10)"
    sampled = number_truncated_rows(said, np.array([6, 8, 9, 40]))
    assert describe_truncated_rows(sampled) == "row 9 (5), row 41 (10)"
    many = number_truncated_rows(sizes(*[9] * 20, wanted=4)[1], range(20))
    assert describe_truncated_rows(many).endswith("row 8 (9) and 12 more")
