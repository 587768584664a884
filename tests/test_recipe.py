"""Recipes: TOML and `--set` in, the same recipe out, and a refusal that helps for everything else."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hubtune import other_names
from hubtune.errors import RecipeError
from hubtune.options import describe, option
from hubtune.recipe import (
    TABLES,
    DataConfig,
    PluginChoice,
    PublishConfig,
    Recipe,
    TrainConfig,
    build,
    fill,
    override,
    parse_literal,
    read,
)

LEAST: dict[str, dict[str, Any]] = {"task": {"name": "sentiment"}, "model": {"id": "org/name"}}


def with_set(*sets: str) -> Recipe:
    return build(override(LEAST, sets))


def some_recipe(seed: int) -> Recipe:
    draw = random.Random(seed)

    def maybe(value: Any) -> Any:
        return value if draw.random() < 0.5 else None

    words = ["body", "naïve \"quoted\" \\ text", "a.b", "größe", "two\nlines", "#hash", "=", "日本"]
    length: dict[str, Any] = draw.choice([{"epochs": draw.random() * 9 + 0.1}, {"max_steps": draw.randint(1, 99)}, {}])
    return Recipe(
        task=PluginChoice("sentiment", {"kind": draw.choice(words), "threshold": draw.random()} if draw.random() < 0.5 else {}),
        model=draw.choice(["org/name", "org/name@main", "./folder", "C:\\models\\x"]),
        data=DataConfig(
            draw.choice(words), draw.choice([0.1, 0.25, "dev.csv"]), maybe(draw.randint(4, 99)),
            {"text": draw.choice(words), "label": draw.choice(words)} if draw.random() < 0.5 else {},
        ),
        strategy=PluginChoice("lora", {"rank": draw.randint(1, 64), "dora": True, "targets": draw.sample(words, 2)}),
        loss=maybe(PluginChoice("focal", {"gamma": draw.random(), "class_weights": {"a b": 2.0, "größe": 0.5}})),
        train=TrainConfig(
            metrics=draw.sample(["mcc", "kappa"], draw.randint(0, 2)), metric_for_best_model=maybe("mcc"), **length, batch_size=maybe(draw.randint(1, 64)), learning_rate=maybe(10 ** draw.uniform(-7, -1)),
            warmup=draw.choice([0.0, 0.06, 100.0]), schedule=draw.choice(["linear", "cosine", "constant"]),
            seed=draw.randint(0, 2**31), keep=draw.choice(["best", "last"]), report_to=maybe("tensorboard"),
        ),
        publish=PublishConfig(maybe("me/x"), draw.random() < 0.5, False, draw.random() < 0.5, maybe("mit"), draw.sample(["en", "de", "no"], 2)),
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_recipe_as_toml_is_the_same_recipe_again(seed: int, tmp_path: Path) -> None:
    recipe = some_recipe(seed)
    (tmp_path / "recipe.toml").write_text(recipe.as_toml(), encoding="utf-8")
    assert read(tmp_path / "recipe.toml") == recipe


@pytest.mark.parametrize("seed", range(20))
def test_a_recipe_as_json_is_the_same_recipe_again(seed: int) -> None:
    recipe = some_recipe(seed)
    assert build(recipe.as_dict()) == recipe
    assert tuple(recipe.as_dict()) == tuple(name for name in TABLES if name != "loss" or recipe.loss)


def test_an_option_set_to_none_stays_set() -> None:
    recipe = Recipe(PluginChoice("sentiment"), "org/name", strategy=PluginChoice("lora", {"alpha": None}))
    assert build(recipe.as_dict()) == recipe
    assert build(json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_what_is_not_set_is_null_in_json_and_absent_in_toml() -> None:
    recipe = build(LEAST)
    assert recipe.as_dict()["train"]["learning_rate"] is None
    tables = tomllib.loads(recipe.as_toml())
    unset = {(name, key) for name, table in recipe.as_dict().items() for key, value in table.items() if value is None}
    assert unset >= {("data", "limit"), ("train", "weight_decay"), ("publish", "repo")}
    assert not [(name, key) for name, key in unset if key in tables[name]]


def test_the_least_recipe_is_a_task_and_a_model() -> None:
    assert build(LEAST) == Recipe(PluginChoice("sentiment"), "org/name")
    assert build(LEAST).strategy.name == "full"


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        build(LEAST).model = "other"  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------------ --set


@pytest.mark.parametrize(("text", "value"), [
    ("3e-5", 3e-5), ("5", 5), ("-1", -1), ("true", True), ("[1, 2]", [1, 2]), ('["q", "v"]', ["q", "v"]), ('"5"', "5"),
    ("'true'", "true"), ("body", "body"), ("a b", "a b"), ("none", None), ("None", None), ("", ""), ("org/x@v1", "org/x@v1"),
    ("5 stars", "5 stars"), ("[broken", "[broken"), ("1_000", 1000), ("a = 1", "a = 1"),
])
def test_set_values_are_toml_literals_or_strings(text: str, value: Any) -> None:
    found = parse_literal(text)
    assert found == value
    assert type(found) is type(value)


def test_set_lays_values_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[task]\nname = "sentiment"\n[model]\nid = "a/b"\n[train]\nlearning_rate = 1e-3\nseed = 7\n', encoding="utf-8")
    recipe = read(path, ["train.learning_rate=3e-5", "train.keep = last", "data.text=body", "strategy.name=lora", "strategy.rank=4"])
    assert (recipe.train.learning_rate, recipe.train.seed, recipe.train.keep) == (3e-5, 7, "last")
    assert recipe.data.columns == {"text": "body"}
    assert recipe.strategy == PluginChoice("lora", {"rank": 4})


def test_set_over_a_table_that_is_none_is_refused() -> None:
    with pytest.raises(RecipeError):
        build(override({**LEAST, "train": 3}, ["train.learning_rate=1"]))


def test_set_does_not_change_what_it_was_laid_over() -> None:
    tables: dict[str, Any] = {"train": {"learning_rate": 1.0}}
    override(tables, ["train.learning_rate=2", "data.limit=3"])
    assert tables == {"train": {"learning_rate": 1.0}}


def test_the_last_set_wins_and_a_value_may_hold_an_equals_sign() -> None:
    assert override({}, ["data.text=a", "data.text=b=c"]) == {"data": {"text": "b=c"}}


@pytest.mark.parametrize("item", ["lr=3", "train.learning_rate", "train.=3", "=3", ""])
def test_set_without_table_key_and_value_is_refused(item: str) -> None:
    with pytest.raises(RecipeError, match=r"--set takes TABLE\.KEY=VALUE") as caught:
        override({}, [item])
    assert caught.value.hint == "For example: --set train.learning_rate=3e-5"


def test_none_leaves_a_setting_open_and_is_refused_where_nothing_can_be_open() -> None:
    assert with_set("train.epochs=3", "train.epochs=none").train.epochs is None
    assert with_set("publish.license=none").publish.license is None
    with pytest.raises(RecipeError, match=r"train\.seed must be a whole number, not None"):
        with_set("train.seed=none")


@dataclasses.dataclass(frozen=True)
class Weighted:
    weights: str = option("none", "how rows weigh", choices=("none", "balanced"))


def test_none_is_a_string_where_it_is_one_of_the_choices() -> None:
    assert fill(Weighted, override({}, ["task.weights=none"])["task"], "task").weights == "none"


# -------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("sets", "message"), [
    ("train.epoch=3", "there is no key train.epoch. Did you mean 'epochs'?"),
    ("publish.licence=mit", "there is no key publish.licence. Did you mean 'license'?"),
    ("trian.lr=3", "no table 'trian' in 'trian.lr=3'. Did you mean 'train'?"),
    ("train.schedule=linea", "train.schedule must be one of linear, cosine, constant, not 'linea'."),
    ("train.learning_rate=fast", "train.learning_rate must be a number or none, not 'fast'."),
    ("train.learning_rate=", "train.learning_rate must be a number or none, not ''."),
    ("train.learning_rate=true", "train.learning_rate must be a number or none, not True."),
    ("train.batch_size=1.5", "train.batch_size must be a whole number or none, not 1.5."),
    ("train.seed=true", "train.seed must be a whole number, not True."),
    ("publish.public=1", "publish.public must be true or false, not 1."),
    ("publish.language=en", "publish.language must be a list, not 'en'."),
    ("publish.language=[1]", "publish.language must be a list, not [1]."),
    ("data.source=5", "data.source must be a string, not 5."),
    ("data.validation=true", "data.validation must be a number or a string, not True."),
    ("data.text=5", "data.text must be the name of a column, not 5."),
    ("data.text=none", "data.text must be the name of a column, not None."),
    ("train.epochs=0", "train.epochs must be above 0, not 0.0."),
    ("train.batch_size=-1", "train.batch_size must be above 0, not -1."),
    ("train.learning_rate=-1e-5", "train.learning_rate must be above 0, not -1e-05."),
    ("train.weight_decay=-1", "train.weight_decay must not be negative: -1.0."),
    ("train.early_stopping_patience=-1", "train.early_stopping_patience must not be negative: -1."),
])
def test_invalid_values_are_refused_with_the_allowed_ones(sets: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        with_set(sets)
    assert caught.value.message.startswith(message)


def test_an_unknown_key_is_answered_with_all_that_are_known() -> None:
    with pytest.raises(RecipeError) as caught:
        with_set("train.zzz=1")
    assert all(field.name in caught.value.message for field in dataclasses.fields(TrainConfig))


@pytest.mark.parametrize("text", ["nan", "inf"])
@pytest.mark.parametrize("key", ["learning_rate", "epochs", "warmup", "max_grad_norm"])
def test_numbers_are_finite(key: str, text: str) -> None:
    with pytest.raises(RecipeError):
        with_set(f"train.{key}={text}")


@pytest.mark.parametrize("limit", ["-1", "0", "3", "true", "10.0", "all"])
def test_a_limit_leaves_rows_to_train_and_to_validate_with(limit: str) -> None:
    with pytest.raises(RecipeError, match=r"data\.limit must be a whole number from 4, not"):
        with_set(f"data.limit={limit}")
    assert with_set("data.limit=4").data.limit == 4
    assert with_set("data.limit=none").data.limit is None


def test_epochs_and_steps_are_not_both_given() -> None:
    with pytest.raises(RecipeError, match=r"train\.epochs=3 and train\.max_steps=10 exclude each other"):
        with_set("train.epochs=3", "train.max_steps=10")


def test_a_whole_number_is_a_number() -> None:
    epochs = with_set("train.epochs=3").train.epochs
    assert epochs == 3.0
    assert isinstance(epochs, float)


@pytest.mark.parametrize(("tables", "message"), [
    ({"model": {"id": "a/b"}}, "no task"),
    ({"task": {"name": "sentiment"}}, "no model"),
    ({**LEAST, "optimizer": {}}, r"no table \[optimizer\]"),
    ({**LEAST, "train": 3}, r"\[train\] must be a table of keys, not 3"),
])
def test_tables_that_make_no_recipe_are_refused(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        build(tables, where="recipe.toml")
    assert caught.value.where == "recipe.toml"


def test_an_unknown_key_of_the_model_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"no key model\.revision; \[model\] has: id, resize_embeddings, library_class") as caught:
        build({**LEAST, "model": {"id": "org/name", "revision": "v1"}})
    assert "org/name@revision" in str(caught.value.hint)


def test_missing_and_invalid_recipe_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no recipe") as caught:
        read(tmp_path / "none.toml")
    assert "hubtune recipe" in str(caught.value.hint)
    (tmp_path / "bad.toml").write_bytes(b"[task\nname = \xff")
    with pytest.raises(RecipeError, match="this is not TOML"):
        read(tmp_path / "bad.toml")
    (tmp_path / "broken.toml").write_text("[task", encoding="utf-8")
    with pytest.raises(RecipeError, match="this is not TOML"):
        read(tmp_path / "broken.toml")


def test_every_setting_has_a_line_of_help() -> None:
    for part in (DataConfig, TrainConfig, PublishConfig):
        silent = [field.name for field in dataclasses.fields(part) if not field.metadata.get("help")]
        assert silent in ([], ["columns"])


def test_types_in_words() -> None:
    assert describe(int | None) == "a whole number or none"
    assert describe(list[str]) == "a list"


# -------------------------------------------------------------------------------------------------- names from elsewhere


@pytest.mark.parametrize(("sets", "message", "hint"), [
    ("train.lr=3e-5", "train.lr is now train.learning_rate.", "Write: --set train.learning_rate=3e-05"),
    ("train.order=bucketed", "train.order is now train.sampler.", "Write: --set train.sampler=length-bucketed"),
    ("train.shard=full", "train.shard is now train.fsdp.", "Write: --set train.fsdp=on"),
    ("train.prove=false", "train.prove is now train.verify.", "Write: --set train.verify=false"),
])
def test_a_key_of_version_0_1_is_answered_with_its_new_name(sets: str, message: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        with_set(sets)
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert isinstance(with_set(hint.removeprefix("Write: --set ")), Recipe)


@pytest.mark.parametrize("old", other_names.RENAMED)
def test_every_renamed_key_names_a_key_that_exists(old: str) -> None:
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    assert other_names.RENAMED[old] in names
    assert old not in names


@pytest.mark.parametrize(("name", "right"), [
    ("num_train_epochs", "train.epochs"), ("per_device_train_batch_size", "train.batch_size"), ("fp16", "train.precision=fp16"),
    ("bf16", "train.precision=bf16"), ("load_best_model_at_end", "train.keep=best"), ("gradient_accumulation_steps", "train.batch_size"),
    ("lr_scheduler_type", "train.schedule"), ("warmup_ratio", "train.warmup"), ("logging_steps", "log.jsonl"),
    ("max_seq_length", "train.max_length"), ("lora_alpha", "strategy.alpha"), ("eval_steps", "train.evals_per_epoch"),
    ("group_by_length", "train.sampler=length-bucketed"), ("torch_compile", "blocks are not compiled"),
])
def test_a_name_of_trainer_trl_or_peft_is_answered_with_the_key_that_does_it(name: str, right: str) -> None:
    with pytest.raises(RecipeError) as caught:
        with_set(f"train.{name}=1")
    assert caught.value.message.startswith(f"there is no key train.{name}: ")
    assert right in caught.value.message


def test_what_is_named_instead_exists() -> None:
    keys = {f"train.{field.name}" for field in dataclasses.fields(TrainConfig)}
    named = {key for advice in other_names.INSTEAD.values() for key in re.findall(r"train\.\w+", advice)}
    assert named
    assert named <= keys
    assert not other_names.INSTEAD.keys() & {key.removeprefix("train.") for key in keys}
    for advice in other_names.INSTEAD.values():
        for setting in re.findall(r"train\.\w+=[\w-]+", advice):
            assert isinstance(with_set(setting), Recipe)


def test_a_value_of_version_0_1_is_answered_with_its_new_name() -> None:
    with pytest.raises(RecipeError, match=r"not 'bucketed' \('bucketed' is now 'length-bucketed'\)"):
        with_set("train.sampler=bucketed")
