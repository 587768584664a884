"""Conversations at random: rows that are learnt from, or one of hubtune's errors; never a library's, and in time."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fuzz import hypothesis, try_many

import hubtune
from hubtune.errors import HubtuneError

st = hypothesis.strategies

FEW = 6
TEMPLATE = (
    "{% if tools %}[tools]{{ tools | tojson }}{{ eos_token }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{% for call in m.tool_calls or [] %}<call>{{ call.function.name }} {{ call.function.arguments | tojson }}</call>{% endfor %}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "the weather", "parameters": {"type": "object", "properties": {}}}}
USER, DONE = {"role": "user", "content": "hot?"}, {"role": "assistant", "content": "Cold."}
TALK = [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "3 degrees"}, DONE]
WHOLE: dict[str, list[dict[str, Any]]] = {
    "messages": [{"messages": TALK, "tools": [TOOL]}, {"messages": [{"role": "system", "content": "Be brief."}, USER, DONE], "tools": []}],
    "sharegpt": [{"conversations": [{"from": "human", "value": "hot?"}, {"from": "gpt", "value": "Cold."}], "system": "Be brief."}],
    "prompt": [{"prompt": [USER], "completion": [DONE]}, {"prompt": "hot?", "completion": "Cold."}],
    "alpaca": [{"instruction": "Say it.", "input": "hot?", "output": "Cold.", "history": [["hi", "hello"]], "system": ""}],
    "text": [{"text": "It was cold."}],
}
PAIRS = [{"prompt": [USER], "chosen": [DONE], "rejected": [{"role": "assistant", "content": "Hot."}]},
         {"chosen": [USER, DONE], "rejected": [USER, {"role": "assistant", "content": "Hot."}]}]
WORDS = ["", "user", "assistant", "system", "tool", "human", "gpt", "function_call", "observation", "developer", "Cold.", "[", "[{", '[{"role": "user"}]',
         "null", "{}", json.dumps([CALL]), json.dumps(CALL), "\ud7ff", "\0", "{{ 1 }}", "</s>", "<|im_end|>", "é" * 300]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(allow_nan=False), st.sampled_from([2**63, 10**30]),
                    st.sampled_from(WORDS), st.text(max_size=6))
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(
        ["role", "content", "from", "value", "type", "text", "name", "arguments", "function", "a"]), inner, max_size=3),
    st.sampled_from([USER, DONE, TALK[1], CALL, TOOL])), max_leaves=6)
KEYS = st.sampled_from(["role", "content", "from", "value", "tool_calls", "function_call", "tools", "functions", "reasoning_content", "thinking", "weight",
                        "train", "learnt", "name", "tool_call_id", "system", "history", "messages", "prompt", "completion", "chosen", "rejected",
                        "label", "text", "type", "function", "arguments"])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside a JSON value but itself."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [step for key, item in inner for step in ((*path, key), *places(item, (*path, key)))]


@st.composite
def changed(draw: Any, whole: list[dict[str, Any]]) -> list[Any]:
    """A dozen rows, some of which have one to four values replaced, left out or added."""
    rows: list[Any] = [copy.deepcopy(whole[number % len(whole)]) for number in range(12)]
    every = draw(st.booleans())  # the same change in all rows, or in one
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(places(rows[:len(whole)])))
        value, kind, key = draw(VALUES), draw(st.sampled_from(["replace", "replace", "delete", "add"])), draw(KEYS)
        for number in range(path[0], len(rows), len(whole)) if every else (path[0],):
            holder: Any = rows
            try:
                for step in (number, *path[1:])[:-1]:
                    holder = holder[step]
                last = number if len(path) == 1 else path[-1]
                if kind == "add" and isinstance(holder[last], dict):
                    holder[last][key] = copy.deepcopy(value)
                elif kind == "delete" and isinstance(holder, dict):
                    del holder[last]
                elif len(path) > 1:
                    holder[last] = copy.deepcopy(value)
            except (KeyError, IndexError, TypeError):
                continue  # an earlier change took it away
    return rows


@pytest.fixture(scope="module")
def speaker(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model with a chat template that writes tools."""
    folder = tmp_path_factory.mktemp("chat") / "llama"
    shutil.copytree(tiny_model("llama"), folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


def learn(rows: list[Any], task: str, model: Path, path: Path) -> None:
    """Check rows from a file as `train` does, and those that are all tables as Python rows, too."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for source in (path, rows) if all(isinstance(row, dict) for row in rows) else (path,):
        try:
            hubtune.check(task, model=model, data=source, out=path.parent / "run")
        except HubtuneError as error:
            kind = error.kind
        else:
            kind = "fine"
        assert kind not in ("hubtune-error", "unexpected-error")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", WHOLE)
def test_any_conversation_is_learnt_from_or_an_error_of_ours(form: str, speaker: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    try_many("chat rows", lambda rows: learn(rows, "text-generation", speaker, path), changed(WHOLE[form]), FEW, share=0.3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["preference", "reward-model"])
def test_any_pair_of_answers_is_learnt_from_or_an_error_of_ours(task: str, speaker: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    try_many("chat rows", lambda rows: learn(rows, task, speaker, path), changed(PAIRS), FEW, share=0.3)


def test_rows_without_any_column_of_the_task_are_refused(speaker: Path, tmp_path: Path) -> None:
    """Found by the tests above: no column was selected, and rows without columns have no number."""
    with pytest.raises(HubtuneError, match=r"no column that the task reads\. Columns: role; recognized names"):
        hubtune.check("text-generation", model=speaker, data=[{"role": None}] * 12, out=tmp_path / "run")
