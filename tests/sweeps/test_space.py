"""Ranges: as they are written, as options declare them, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hubtune_plugins.finetuning.full import Full
from hubtune_plugins.finetuning.head import Head
from hubtune_plugins.text.text_classification import TextClassification

from hubtune import RecipeError, Strategy, option
from hubtune.sweeps import space
from hubtune.sweeps.space import Range


@dataclass(frozen=True)
class OwnOptions:
    size: int = option(8, "a size", search=[4, 8])
    share: float = option(0.5, "a share", search=(0.1, 0.4))
    plain: int = option(1, "not searched")


class Own(Strategy[Any]):
    contract = 2
    name = "own"
    summary = "with ranges"
    Options = OwnOptions


STRATEGIES: dict[str, type[Strategy[Any]]] = {"full": Full, "own": Own}


def built(*search: str, fixed: tuple[str, ...] = ()) -> dict[str, Range]:
    return {one.name: one for one in space.build(TextClassification, STRATEGIES, search, fixed)}


def test_ranges_are_read_as_they_are_written() -> None:
    assert space.parse("train.learning_rate=1e-5..1e-3:log") == Range("train.learning_rate", (1e-5, 1e-3), log=True)
    assert space.parse("train.batch_size=8, 16") == Range("train.batch_size", (8, 16), True)
    assert space.parse("strategy.rank=4..64").is_whole
    assert not space.parse("train.warmup=0.0..0.2").is_whole
    texts = ["train.learning_rate=1e-05..0.001:log", "strategy.rank=4,8"]
    assert space.as_texts({"train.learning_rate": (1e-5, 1e-3, "log"), "strategy.rank": [4, 8]}) == texts
    assert space.as_texts(texts) == texts


@pytest.mark.parametrize(("text", "message"), [
    ("train.learning_rate", "takes TABLE.KEY"), ("learning_rate=1..2", "takes TABLE.KEY"), ("train.warmup=0.3..0.1", "the lower first"),
    ("train.warmup=0..0.1:log", "above 0"), ("train.warmup=a..b", "two numbers"), ("train.seed=1,2", "cannot vary 'train.seed'"),
    ("data.validation=0.1,0.2", "cannot vary 'data.validation'"), ("train.no_such=1,2", "no_such"), ("train.epochs=0..3", "above 0"),
    ("train.batch_size=8,x", "must be a whole number"), ("strategy.rank=4,8", "no strategy of full, own has this option"),
])
def test_what_cannot_be_searched_is_refused_with_an_example(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        built(text)
    assert message in str(refused.value)


def test_options_declare_ranges_which_belong_to_their_strategy() -> None:
    found = built()
    assert {"train.learning_rate", "train.epochs", "train.batch_size", "full: strategy.head_rate", "own: strategy.size",
            "own: strategy.share"} == set(found)
    assert found["train.learning_rate"].relative
    assert found["own: strategy.size"].values == (4, 8)
    assert str(found["train.learning_rate"]) == "train.learning_rate=0.2x..5x:log"


def test_what_the_user_searches_or_sets_replaces_what_is_declared() -> None:
    found = built("strategy.size=1,2,3", "train.learning_rate=1e-5..1e-4", fixed=("train.batch_size", "train.max_steps"))
    assert found["own: strategy.size"].values == (1, 2, 3)
    assert not found["train.learning_rate"].relative
    assert not {"train.batch_size", "train.epochs"} & set(found)


def test_defaults_are_known_where_the_range_has_them() -> None:
    found = space.defaults(built().values(), STRATEGIES)
    assert found == {"train.learning_rate": 1.0, "train.epochs": 1.0, "full: strategy.head_rate": 10.0, "own: strategy.size": 8}


def test_head_has_no_options_to_search() -> None:
    found = space.build(TextClassification, {"head": Head}, [], [])
    assert {one.key for one in found} == {"train.learning_rate", "train.epochs", "train.batch_size"}
