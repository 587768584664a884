"""Recipes and `--set` at random: a recipe, a plan or one of hubtune's errors comes out, never a library's, and in time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fuzz import hypothesis, try_many

import hubtune
from hubtune import recipe
from hubtune.errors import HubtuneError

st = hypothesis.strategies

ROWS = [{"text": f"row {n} is good", "label": "yes" if n % 2 else "no"} for n in range(16)]
KEYS = [f"{table}.{name}" for table, names in recipe.build(
    {"task": {"name": "text-classification"}, "model": {"id": "tiny/bert"}}).as_dict().items() for name in names]
KEYS = [key for key in KEYS if key not in ("model.id", "publish.repo", "data.source")]
KEYS += ["task.kind", "task.separator", "task.threshold", "task.calibrate", "task.metric", "task.label_form", "task.abstain_accuracy",
         "strategy.rank", "loss.name", "loss.weights", "data.text", "data.label", "data.nowhere", "nothing.here", "train", "train."]
WORDS = ["", "a", "auto", "text", "label", "none", "true", "1", "-1", "0", "1e400", "nan", "-inf", "3e-5", "[", "{", "'", '"', "[1, 2]", "{a = 1}",
         "utf-8", "cp1252", "idna", "utf-16", "rot13", "\\ud800", "\0", "9" * 400, "9" * 5000, "0x10", "1979-05-27T07:32:00Z", "drop-empty", "mcc",
         "full", "lora", "head", "bf16", "fp16", "fp64", "random", "cosine", "[" * 3000, "../x", "a.b.c", "[\"drop-empty\"]", "regression"]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.sampled_from([2**31, 2**63, -2**63, 10**30, 10**400]), st.floats(),
    st.sampled_from(WORDS), st.text(max_size=6))
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)), max_leaves=5)
ASSIGNMENTS = st.lists(st.one_of(
    st.builds("{}={}".format, st.sampled_from(KEYS), st.one_of(st.sampled_from(WORDS), st.text(max_size=8), VALUES.map(repr), SCALARS.map(str))),
    st.text(max_size=12)), min_size=1, max_size=4)
TOML = """\
[task]
name = "text-classification"
kind = "single_label"

[model]
id = "tiny/bert"

[data]
source = "rows.csv"
validation = 0.1
clean = ["drop-empty"]
splits = {train = "train"}

[train]
epochs = 2.0
seed = 3
metrics = []

[publish]
language = ["en"]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tried(call: Any) -> str:
    """Return what becomes of a call: fine, or the kind of an error of ours."""
    try:
        call()
        return "fine"
    except HubtuneError as error:
        kind = error.kind
    assert kind not in ("hubtune-error", "unexpected-error")
    return kind


def test_any_assignment_is_a_recipe_or_an_error_of_ours() -> None:
    def build(assignments: list[str]) -> None:
        made = recipe.build(recipe.override({"task": {"name": "text-classification"}, "model": {"id": "tiny/bert"}}, assignments))
        json.dumps(made.as_dict(), default=str)
        made.as_toml()

    try_many("recipe: --set", lambda assignments: tried(lambda: build(assignments)), ASSIGNMENTS, 40)


def test_any_table_is_a_recipe_or_an_error_of_ours(place: Path) -> None:
    """A recipe that is written is read as the same."""
    tables_at_random = st.dictionaries(st.sampled_from([*recipe.TABLES, "more"]), st.one_of(
        VALUES, st.dictionaries(st.sampled_from([key.rpartition(".")[2] for key in KEYS]), VALUES, max_size=4)), max_size=4)

    def try_one(tables: dict[str, Any]) -> None:
        def build() -> None:
            made = recipe.build({"task": {"name": "a"}, "model": {"id": "b"}, **tables})
            if tables.keys() & {"task", "strategy", "loss"}:
                return  # their plugins check the options
            path = place / "recipe.toml"
            path.write_text(made.as_toml(), encoding="utf-8")
            assert recipe.read(path) == made

        tried(build)

    try_many("recipe: tables", try_one, tables_at_random, 40)


@pytest.mark.parametrize("kind", ["pieces", "bytes"])
def test_any_file_is_a_recipe_or_an_error_of_ours(kind: str, place: Path) -> None:
    whole = TOML.encode()
    pieces = st.tuples(st.integers(0, len(whole)), st.integers(0, 20), st.one_of(
        st.binary(max_size=8), st.sampled_from(WORDS).map(lambda text: text.encode("utf-8", "surrogatepass"))))

    def damaged(changes: list[tuple[int, int, bytes]]) -> bytes:
        content = whole
        for start, length, piece in changes:
            content = content[:start] + piece + content[start + length:]
        return content

    contents = st.lists(pieces, min_size=1, max_size=4).map(damaged) if kind == "pieces" else st.binary(max_size=80)

    def try_one(content: bytes) -> None:
        path = place / "recipe.toml"
        path.write_bytes(content)
        tried(lambda: recipe.read(path))

    try_many("recipe: TOML file", try_one, contents, 40)


@pytest.mark.filterwarnings("ignore")
def test_any_setting_is_a_plan_or_an_error_of_ours(place: Path, tiny_model: Any) -> None:
    """Settings pass through all that `train --check` does."""
    model = tiny_model("bert")

    def try_one(assignments: list[str]) -> None:
        tried(lambda: hubtune.check("text-classification", model=model, data=ROWS, set=assignments, out=place / "run"))

    try_many("recipe: --set, planned", try_one, ASSIGNMENTS, 10, share=0.25)
