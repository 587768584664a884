"""`hubtune models`: what the coverage run found, by task, strategy and words."""

import json

import pytest
from hubtune_plugins.commands.models import DATA, Models

from benchmarks.coverage import listing
from hubtune.errors import RecipeError

LINES = [
    {"task": "text-classification", "strategy": "full", "model_type": "mamba", "state": "passed", "head": {"part": ""}},
    {"task": "text-classification", "strategy": "lora", "model_type": "mamba", "state": "failed", "reason": "a | b\nc"},
    {"task": "text-classification", "strategy": "full", "model_type": "bert", "state": "passed", "head": None},
    {"task": "token-classification", "strategy": "full", "model_type": "tapas", "state": "refused", "reason": "it needs tables"},
    {"task": "token-classification", "strategy": "full", "model_type": "blt", "state": "not built", "reason": "too big"},
]


@pytest.fixture
def found(tmp_path, monkeypatch):
    path = tmp_path / "architectures.json"
    path.write_text(listing.render(LINES, "5.0"), encoding="utf-8")
    monkeypatch.setattr("hubtune_plugins.commands.models.DATA", path)
    return Models().run


def test_a_task_and_words_and_a_strategy_choose(found):
    names = [(one["architecture"], one["strategies"], one["head"]) for one in found(task="text-classification")["models"]]
    assert names == [("bert", ["full"], "transformers"), ("mamba", ["full"], "hubtune")]
    (mamba,) = found(search="MAM ba")["models"]
    assert mamba["reasons"] == {"lora": "failed: a \\| b c"}
    assert found(strategy="lora")["models"] == []
    with pytest.raises(RecipeError, match="no architectures were tried for the task 'fill-mask'"):
        found(task="fill-mask")


def test_without_a_choice_they_are_counted_and_what_could_not_be_built_is_left_out(found):
    table = Models().table(found())
    assert table.rows == [["text-classification", 2, 2, 1], ["token-classification", 1, 0, 0]]
    assert [row[0] for row in Models().table(found(search="tapas")).rows] == ["tapas"]


def test_the_file_of_the_package_is_that_of_the_results():
    from benchmarks.coverage import __main__ as coverage

    data = json.loads(DATA.read_text(encoding="utf-8"))
    lines = coverage.read(coverage.REPO / "benchmarks" / "results" / "coverage.jsonl")
    assert json.loads(listing.render(lines, data["transformers"])) == data
