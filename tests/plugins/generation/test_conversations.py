"""Conversations: every field of a row reaches the chat template or is refused by row, and only chosen turns are learnt."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from datasets import Dataset
from hubtune_plugins.generation.conversations import conversation, question_of
from hubtune_plugins.generation.preference import Preference
from hubtune_plugins.generation.reward_model import RewardModel
from hubtune_plugins.generation.text_generation import GenerationOptions, TextGeneration
from hubtune_plugins.generation.turns.messages import messages, tools_of
from hubtune_plugins.writing.likelihood import IGNORED

import hubtune
from hubtune import DataError
from hubtune.data.columns import find_columns
from hubtune.hub.origin import local_origin
from hubtune.models import configuration

TOOLS_TEMPLATE = (
    "{% if tools %}[tools]{{ tools | tojson }}{{ eos_token }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}{% for call in m.tool_calls or [] %}<call>{{ call.function.name }} {{ call.function.arguments | tojson }}</call>"
    "{% endfor %}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
NO_SYSTEM = PLAIN.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
TOOL = {"name": "weather", "description": "the weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
USER, DONE = {"role": "user", "content": "hot?"}, {"role": "assistant", "content": "Cold."}
TALK = [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "3 degrees"}, DONE]


@pytest.fixture
def made(tiny_model: Any) -> Any:
    """A task and a base with a chat template."""

    def build(template: str = TOOLS_TEMPLATE, task: Any = None, **options: Any) -> tuple[Any, Any]:
        task = task or TextGeneration(GenerationOptions(**options))
        base = configuration.open_base(local_origin(tiny_model("llama")), task)
        base.processor.chat_template = template
        return task, configuration.apply_setup(base, task.model_config({"form": "chat"}, base))

    return build


def example(task: Any, base: Any, row: Any) -> Any:
    [[found]] = task.encode([row], base)
    return found


def read(found: Any, base: Any) -> str:
    return str(base.processor.decode(found["input_ids"]))


def learnt(found: Any, base: Any) -> str:
    return str(base.processor.decode([label for label in found["labels"] if label != IGNORED]))


def test_tool_calls_and_tools_are_read_and_learnt(made: Any) -> None:
    task, base = made()
    row = {"messages": TALK, "tools": [{"type": "function", "function": TOOL}]}
    task.validate_data({"train": [row]})
    found = example(task, base, row)
    end = base.processor.eos_token
    assert learnt(found, base) == f'<call>weather {{"city": "Oslo"}}</call>{end}Cold.{end}'
    assert '"description": "the weather"' in read(found, base)
    assert "[tool]3 degrees" in read(found, base)


def test_a_conversation_may_end_in_a_tool_call(made: Any) -> None:
    task, base = made()
    task.validate_data({"train": [{"messages": TALK[:2]}]})
    assert learnt(example(task, base, {"messages": TALK[:2]}), base).startswith("<call>weather")
    task.validate_data({"train": [{"prompt": "hot?", "completion": [TALK[1]]}]})


@pytest.mark.parametrize("form", [
    {"tools": json.dumps([TOOL])}, {"tools": [TOOL]}, {"tools": json.dumps(TOOL)},
    {"messages": [USER, {"role": "assistant", "tool_calls": [{"name": "weather", "arguments": '{"city": "Oslo"}'}]}, *TALK[2:]]},
    {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": json.dumps([CALL])}, *TALK[2:]]},
    {"messages": [USER, {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"city": "Oslo"}'}}, *TALK[2:]]},
    {"messages": [{"from": "human", "value": "hot?"}, {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
                  {"from": "observation", "value": "3 degrees"}, {"from": "gpt", "value": "Cold."}]},
])
def test_forms_of_calls_and_tools_are_one(made: Any, form: Any) -> None:
    task, base = made()
    row = {"messages": TALK, "tools": [{"type": "function", "function": TOOL}]}
    assert example(task, base, {**row, **form}) == example(task, base, row)


def test_lists_may_be_json_in_strings_as_in_a_csv(made: Any) -> None:
    task, base = made()
    row = {"messages": TALK, "tools": [TOOL], "history": [["hi", "hello"]]}
    text = {name: json.dumps(value) for name, value in row.items()}
    task.validate_data({"train": [text]})
    assert example(task, base, text) == example(task, base, row)
    assert conversation({"prompt": "[{", "completion": "[1]"}) == [{"role": "user", "content": "[{"}, {"role": "assistant", "content": "[1]"}]


def test_a_written_call_is_compared_with_the_call(made: Any) -> None:
    task, base = made()
    rows = [{"messages": TALK[:2]}, {"messages": [USER, DONE]}]
    likelihood = {"nll": 0.0, "tokens": 1, "hits": 1}
    right = [{**likelihood, "text": text} for text in ('<call>weather {"city": "Oslo"}</call>', "Cold.")]
    assert task.score(right, rows, base)["exact_match"] == 1.0
    assert task.score([{**right[0], "text": ""}, right[1]], rows, base)["exact_match"] == 0.5


def test_nulls_that_arrow_adds_are_dropped(made: Any) -> None:
    task, base = made()
    other = {**CALL, "function": {"name": "time", "arguments": {"zone": 2}}}
    rows = [{"messages": TALK, "tools": [TOOL]},
            {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [other]}, *TALK[2:]], "tools": [{"name": "time", "strict": True}]}]
    kept = list(Dataset.from_list(rows))
    assert "zone" in kept[0]["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert [example(task, base, row) for row in kept] == [example(task, base, row) for row in rows]


@pytest.mark.parametrize(("template", "row", "what", "field"), [
    (PLAIN, {"messages": TALK}, "the field 'tool_calls' of messages", "tool_calls"),
    (PLAIN, {"messages": [USER, DONE], "tools": [TOOL]}, "the tools", "tools"),
    (PLAIN, {"messages": [USER, {**DONE, "reasoning_content": "Hm."}]}, "the field 'reasoning_content' of messages", "reasoning_content"),
    (PLAIN, {"messages": [{**USER, "images": ["a.png"]}, DONE]}, "the field 'images' of messages", "images"),
    (NO_SYSTEM, {"messages": [USER, DONE], "system": "Be kind."}, "turns of the role 'system'", None),
    (NO_SYSTEM.replace("system", "tool"), {"messages": TALK}, "turns of the role 'tool'", None),
])
def test_what_a_template_does_not_write_is_refused_by_row(made: Any, template: str, row: Any, what: str, field: str | None) -> None:
    task, base = made(template)
    with pytest.raises(DataError) as refused:
        list(task.encode([{"messages": [USER, DONE]}, row], base))
    assert refused.value.where == "row 2"
    assert refused.value.message == f"the chat template of {base.repo} does not write {what}."
    if field:
        assert f"task.ignore_fields=[\"{field}\"]" in str(refused.value.hint)
        task, base = made(template, ignore_fields=[field])
        if field != "tool_calls":
            assert learnt(example(task, base, row), base) == f"Cold.{base.processor.eos_token}"


def test_turns_that_are_empty_without_their_calls_are_not_learnt(made: Any) -> None:
    """A model must not be taught to say nothing where it should call a tool."""
    task, base = made(PLAIN, ignore_fields=["tool_calls"])
    end = base.processor.eos_token
    assert learnt(example(task, base, {"messages": TALK}), base) == f"Cold.{end}"
    assert learnt(example(task, base, {"messages": [USER, DONE, *TALK[:2]]}), base) == f"Cold.{end}"
    assert learnt(example(task, base, {"messages": [USER, {**DONE, "content": " "}, *TALK[2:]]}), base) == f"Cold.{end}"
    with pytest.raises(DataError, match="nothing of it is learnt without tool_calls"):
        list(task.encode([{"messages": TALK[:2]}], base))


def test_fields_that_are_not_written_are_named_once(made: Any, caplog: pytest.LogCaptureFixture) -> None:
    task, base = made()
    talk = [{**USER, "id": "u1"}, {**TALK[1], "id": "a1"}, {**TALK[2], "tool_call_id": "c1", "name": "weather"}, DONE]
    with caplog.at_level(logging.WARNING, "hubtune"):
        for _ in range(2):
            list(task.encode([{"messages": talk}, {"messages": talk[:2]}], base))
    named = [record.getMessage() for record in caplog.records]
    assert [text.split(" of ")[0] for text in named] == [f"not used: the field '{name}'" for name in ("id", "name", "tool_call_id")]
    assert all(base.repo in text for text in named)


def test_reasoning_that_the_template_writes_is_learnt(made: Any) -> None:
    task, base = made()
    talk = [USER, {**DONE, "reasoning_content": "Old."}, USER, {**DONE, "reasoning_content": "Hm."}]
    assert learnt(example(task, base, {"messages": talk}), base).endswith(f"<think>Hm.</think>Cold.{base.processor.eos_token}")


def test_a_call_is_learnt_where_the_template_asks_with_other_words(made: Any) -> None:
    """A template whose question is no beginning of its answer, such as one that opens a thought when it asks."""
    task, base = made(TOOLS_TEMPLATE.replace("[assistant]{% endif %}", "[assistant]<think>{% endif %}"))
    assert learnt(example(task, base, {"messages": TALK[:2]}), base).startswith("[assistant]<call>weather")


def test_system_history_instruction_and_input_are_turns(made: Any) -> None:
    task, base = made(PLAIN)
    row = {"system": "Be kind.", "prompt": "Add a word.", "input": "a river", "completion": "a good river", "history": [["hi", "hello"]]}
    whole = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"},
             {"role": "user", "content": "Add a word.\n\na river"}, {"role": "assistant", "content": "a good river"}]
    assert conversation(row) == whole
    assert conversation({**row, "history": whole[1:3]}) == whole
    assert conversation({"messages": whole[3:], "system": "Be kind.", "history": [["hi", "hello"]]}) == whole
    assert conversation({"messages": [whole[0], *whole[3:]], "history": [["hi", "hello"]]}) == whole
    assert conversation({"messages": whole, "system": "Be kind."}) == whole
    assert example(task, base, row) == example(task, base, {"messages": whole})
    assert conversation({**row, "system": None, "history": None, "input": ""}) == [{"role": "user", "content": "Add a word."}, whole[-1]]
    rows = Dataset.from_list([{"system": "s", "instruction": "i", "input": "", "output": "o", "history": [["a", "b"]]}])
    assert find_columns(rows, TextGeneration.columns, {}) == {
        "prompt": "instruction", "input": "input", "completion": "output", "system": "system", "history": "history"}


@pytest.mark.parametrize(("row", "message"), [
    ({"system": "one", "messages": [{"role": "system", "content": "two"}, USER, DONE]}, "two system prompts"),
    ({"history": [["a"]], "prompt": "b", "completion": "c"}, "no pair of two texts"), ({"history": "a", "prompt": "b", "completion": "c"}, "no list"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}, DONE]}, "a part of the type 'image'"),
    ({"messages": [USER, {**DONE, "weight": 0.5}]}, "the weight of a message is 0.5"),
    ({"messages": [USER, {**DONE, "weight": 0}]}, "no turn that is learnt"), ({"messages": [USER, DONE], "tools": "no json"}, "tools are no JSON"),
    ({"messages": [USER, {"role": "assistant", "tool_calls": [{"id": 1}]}]}, "a tool call has no name"),
    ({"messages": [USER, {"role": "tool", "content": {"degrees": 3}}, DONE]}, r"the content \{.degrees.: 3\} of a message is no text"),
    ({"messages": [{**USER, "train": True}, DONE]}, "a turn of the role 'user' is to be learnt"),
    ({"messages": [{"content": "a"}, DONE]}, "no message"), ({"messages": 3}, "no list of messages"),
])
def test_rows_that_cannot_be_read_are_refused_with_their_numbers(made: Any, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as refused:
        TextGeneration().validate_data({"train": [{"messages": [USER, DONE]}, row]})
    assert "row 2 of train" in refused.value.message
    task, base = made()
    if "learnt" not in message:
        with pytest.raises(DataError, match=message):
            list(task.encode([row], base))


def test_only_chosen_turns_are_learnt(made: Any) -> None:
    task, base = made(PLAIN)
    end = base.processor.eos_token
    one, two, three = ({"role": "assistant", "content": text} for text in ("One.", "Two.", "Three."))

    def found(*answers: Any) -> Any:
        return example(task, base, {"messages": [turn for answer in answers for turn in (USER, answer)]})

    assert learnt(found(one, two, three), base) == f"One.{end}Two.{end}Three.{end}"
    assert learnt(found({**one, "weight": 0}, {**two, "weight": 1}, three), base) == f"Two.{end}Three.{end}"
    assert learnt(found({**one, "train": False}, two, {**three, "train": True}), base) == f"Two.{end}Three.{end}"
    last = found(one, {**two, "weight": 1}, {**three, "weight": 0})
    assert last == found(one, two), "what comes after the last learnt turn is not seen by it"
    assert learnt(found({**one, "weight": None}, {**two, "train": None}), base) == f"One.{end}Two.{end}"
    assert "weight" not in read(last, base)


def test_a_chosen_turn_that_the_template_rewrites_is_refused(made: Any) -> None:
    task, base = made()
    talk = [USER, {**DONE, "reasoning_content": "Old.", "weight": 1}, USER, {**DONE, "reasoning_content": "New."}]
    with pytest.raises(DataError, match="rewrites turn 2") as refused:
        list(task.encode([{"messages": talk}], base))
    assert refused.value.where == "row 1"


def test_predictions_see_the_same_fields(made: Any) -> None:
    task, base = made()
    row = {"messages": TALK, "tools": [TOOL], "system": "Be kind."}
    whole, asked = example(task, base, row), example(task, base, question_of(row))
    assert "labels" not in asked
    assert asked["input_ids"] == whole["input_ids"][: whole["start"]]
    assert "[tools]" in read(asked, base)
    assert "<call>" in read(asked, base)
    assert "Be kind." in read(asked, base)


def test_whole_conversations_are_pairs_with_an_implicit_prompt(made: Any) -> None:
    task, base = made(PLAIN, Preference())
    before = [USER, {"role": "assistant", "content": "What?"}, USER]
    explicit = {"prompt": before, "chosen": [DONE], "rejected": [{**DONE, "content": "Hot."}]}
    implicit = {side: [*before, *explicit[side]] for side in ("chosen", "rejected")}
    task.validate_data({"train": [implicit]})
    pair, other = example(task, base, implicit), example(task, base, explicit)
    end = base.processor.eos_token
    assert [learnt(pair[side], base) for side in ("chosen", "rejected")] == [f"Cold.{end}", f"Hot.{end}"]
    assert [pair[side]["input_ids"] for side in pair] == [other[side]["input_ids"] for side in other]
    rows = Dataset.from_list([implicit])
    assert find_columns(rows, Preference.columns, {}) == {"chosen": "chosen", "rejected": "rejected"}


@pytest.mark.parametrize(("row", "message"), [
    ({"chosen": "Human: a", "rejected": "Human: b"}, "two texts and no prompt: row 2 of train"),
    ({"chosen": [USER, DONE], "rejected": [USER, DONE]}, "two answers that are the same: row 2 of train"),
    ({"chosen": [USER, DONE], "rejected": [USER]}, "row 2 of train"), ({"chosen": [USER, DONE], "rejected": [3]}, "row 2 of train"),
])
def test_pairs_that_are_none_are_refused(row: Any, message: str) -> None:
    pair = {"chosen": [USER, DONE], "rejected": [USER, {**DONE, "content": "Hot."}]}
    with pytest.raises(DataError, match=message):
        Preference().validate_data({"train": [pair, row]})


def test_pairs_keep_system_and_tools(made: Any) -> None:
    pair = {"system": "Be kind.", "tools": [TOOL], "prompt": "hot?", "chosen": [TALK[1]], "rejected": "Hot."}
    for task in (Preference(), RewardModel()):
        _, base = made(TOOLS_TEMPLATE, task)
        task.validate_data({"train": [pair]})
        found = example(task, base, pair)
        texts = [found["chosen"], found["rejected"]] if "chosen" in found else found["texts"]
        assert all("Be kind." in read(text, base) and "[tools]" in read(text, base) for text in texts)
        assert "<call>weather" in read(texts[0], base)


def test_messages_are_read_alike_twice() -> None:
    assert messages(messages(TALK, "user"), "user") == messages(TALK, "user")
    assert tools_of(tools_of([TOOL])) == tools_of([TOOL])


def test_a_run_learns_tool_calls_and_predicts_with_tools(tiny_model: Any, tmp_path: Any) -> None:
    import shutil

    folder = tmp_path / "base"
    shutil.copytree(tiny_model("llama"), folder)
    place = folder / "tokenizer_config.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "chat_template": TOOLS_TEMPLATE}))
    rows = [{"messages": TALK, "tools": [TOOL]}] * 8
    run = hubtune.train("text-generation", model=folder, data=rows, out=tmp_path / "run",
                        set={"train.max_steps": 1, "train.verify": False, "train.precision": "fp32", "task.max_new_tokens": 2})
    assert run.record["data"]["columns"] == {"messages": "messages", "tools": "tools"}
    assert set(run.predict([{"messages": TALK[:1], "tools": [TOOL]}])[0]) == {"text"}
    with pytest.raises(DataError, match="no message"):
        run.predict([{"messages": [{"content": "a"}]}])
