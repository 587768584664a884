"""Text generation: what is learnt of a row, that it is rendered alike everywhere, and that batches change nothing."""

import dataclasses
import json
import math
import shutil

import pytest
import torch
from hubtune_plugins.generation import sequences
from hubtune_plugins.generation.text_generation import GenerationOptions, TextGeneration
from hubtune_plugins.writing.likelihood import IGNORED
from tiny import counts, gold_answer, sample
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

import hubtune
from hubtune import DataError
from hubtune.contract import ExampleRNG
from hubtune.data import encoding
from hubtune.hub.origin import local_origin
from hubtune.models import configuration, loading
from hubtune.testing import TaskConformance

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETFUL = (  # writes reasoning into the last turn only, as some templates do
    "{% for message in messages %}[{{ message['role'] }}]{% if loop.last and message['role'] == 'assistant' %}"
    "<think></think>{% endif %}{{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
DIALOGUE = [
    {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Best soup?"},
    {"role": "assistant", "content": "In town."}, {"role": "user", "content": "And the waiter?"},
    {"role": "assistant", "content": "Kind and quick."},
]
ROWS = [
    {"prompt": "Where is the hotel?", "completion": "Near the station."},
    {"prompt": "What broke after two weeks, and what was said about it?", "completion": "The kettle. Never again."},
    {"prompt": "How many legs?", "completion": "Four legs, one seat, grey, and a good walk along the river besides."},
]


def prepared(task, folder, rows=None, template=None):
    """A model for the task in fp64 and without dropout, and its base; `rows`: what is inspected."""
    origin = local_origin(folder)
    base = configuration.open_base(origin, task)
    if template:
        base.processor.chat_template = template
    base = configuration.apply_setup(base, task.model_config(task.validate_data({"train": rows}) if rows else {}, base))
    model = loading.load(origin, base, task, hubtune.Strategy(), seed=0).model
    return model.double().eval(), base


def examples_of(task, rows, base):
    return [example for examples in task.encode(rows, base) for example in examples]


def learnt(example, base):
    """The text that is learnt of an example."""
    return base.processor.decode([label for label in example["labels"] if label != IGNORED])


def loss(task, model, base, examples, rngs=None):
    batch = task.collate(examples, base, rngs)
    found = task.loss(task.forward(model, batch), batch)
    return dataclasses.replace(found, total=found.total.detach())


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
@pytest.mark.parametrize("template", [None, CHATML, FORGETFUL])
def test_only_answers_and_their_end_are_learnt(model_type, template, tiny_model):
    task = TextGeneration()
    _, base = prepared(task, tiny_model(model_type), ROWS, template)
    end = "<|im_end|>" if template == CHATML else base.processor.eos_token
    example, = examples_of(task, [{"messages": DIALOGUE}], base)
    eos = base.processor.eos_token if template == CHATML else ""  # its end is no special token of this tokenizer
    wanted = {None: f" In town.{end} Kind and quick.{end}", CHATML: f"In town.{end}Kind and quick.{end}{eos}",
              FORGETFUL: f"<think></think>Kind and quick.{end}"}[template]
    assert learnt(example, base) == wanted
    text = base.processor.decode(example["input_ids"])
    assert "Be kind." in text
    assert "And the waiter?" in text


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
@pytest.mark.parametrize("template", [None, CHATML, FORGETFUL])
def test_what_stands_before_an_answer_is_the_same_in_training_prediction_and_the_published_tokenizer(
    model_type, template, tiny_model, tmp_path
):
    task = TextGeneration()
    _, base = prepared(task, tiny_model(model_type), ROWS, template)
    base.processor.save_pretrained(tmp_path)
    published = AutoTokenizer.from_pretrained(tmp_path)
    answered, = examples_of(task, [{"messages": DIALOGUE}], base)
    asked, = examples_of(task, [{"messages": DIALOGUE[:-1]}], base)
    assert set(asked) == {"input_ids"}
    assert answered["input_ids"][: answered["start"]] == asked["input_ids"]
    plain = published.apply_chat_template(DIALOGUE[:-1], add_generation_prompt=True, return_dict=False)
    assert plain == asked["input_ids"]
    begins = base.processor("a").input_ids[0] == base.processor.bos_token_id
    if template is None:
        assert (asked["input_ids"][0] == base.processor.bos_token_id) is begins
        assert asked["input_ids"].count(base.processor.bos_token_id) == begins or model_type == "gpt2"


def test_a_prompt_that_would_melt_into_its_answer_is_tokenised_apart(tiny_model):
    task = TextGeneration()
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    _, base = prepared(task, tiny_model("gpt2"), ROWS, template)
    word = next(word for word in sorted(base.processor.get_vocab()) if word.isalpha() and len(word) > 3)
    assert len(base.processor(word).input_ids) == 1
    example, = examples_of(task, [{"prompt": word[:2], "completion": word[2:]}], base)
    assert example["input_ids"][: example["start"]] == base.processor(word[:2]).input_ids
    assert learnt(example, base) == word[2:] + base.processor.eos_token


def test_rows_of_every_form_are_read_alike(tiny_model):
    task = TextGeneration()
    _, base = prepared(task, tiny_model("llama"), ROWS)
    asked, answer = "Add a word.\n\na river", "a good river"
    forms = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]},
        {"messages": [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": asked}]},
                      {"role": "assistant", "content": answer}]},
        {"prompt": "Add a word.", "input": "a river", "completion": answer},
        {"prompt": [{"role": "user", "content": asked}], "completion": [{"role": "assistant", "content": answer}]},
        {"prompt": asked, "completion": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]},
    ]
    examples = examples_of(task, forms, base)
    assert all(example == examples[0] for example in examples)


def test_columns_are_found_by_the_names_of_well_known_sets():
    from datasets import Dataset

    from hubtune.data.columns import find_columns

    def found(*names):
        rows = Dataset.from_dict({name: ["some words here"] for name in names})
        return find_columns(rows, TextGeneration.columns, {})

    assert found("instruction", "input", "output") == {
        "prompt": "instruction", "input": "input", "completion": "output"}
    assert found("input", "output") == {"prompt": "input", "completion": "output"}
    assert found("prompt", "chosen", "rejected") == {"prompt": "prompt", "completion": "chosen"}
    assert found("instruction", "context", "response", "category") == {
        "prompt": "instruction", "input": "context", "completion": "response"}
    assert found("conversations", "id") == {"messages": "conversations"}
    assert found("text") == {"text": "text"}
    assert {column.role for column in TextGeneration.columns if column.target} == {"completion"}


def test_rows_without_anything_to_learn_are_refused():
    with pytest.raises(DataError, match="neither messages, nor a prompt with its completion") as refused:
        TextGeneration().validate_data({"train": [{"prompt": "a"}]})
    assert "data.completion" in refused.value.hint
    with pytest.raises(DataError, match=r"1 of 3 rows have no answer at their end: row 2 of train"):
        TextGeneration().validate_data({"train": [ROWS[0], {"prompt": "a", "completion": " "}, ROWS[1]]})
    for broken in (DIALOGUE[:-1], [{"who": "user"}], "a text", DIALOGUE[2:3]):
        with pytest.raises(DataError, match="row 2 of test"):
            TextGeneration().validate_data({"train": [{"messages": DIALOGUE}],
                                      "test": [{"messages": DIALOGUE}, {"messages": broken}]})
    with pytest.raises(DataError, match=r"an empty text: row 1 of train"):
        TextGeneration().validate_data({"train": [{"text": ""}]})


def test_every_token_of_a_plain_text_is_learnt_once_however_long_it_is(tiny_model):
    rows = [{"text": "A waste of money: the battery was empty by noon. " * 4}, {"text": "Soup."}]
    task = TextGeneration()
    model, base = prepared(task, tiny_model("llama"), rows)
    whole = examples_of(task, rows, base)
    assert len(whole) == 2
    assert all(example["labels"][1:] == example["input_ids"][1:] for example in whole)
    assert all(example["input_ids"][-1] == base.processor.eos_token_id for example in whole)
    short = dataclasses.replace(base, max_length=9)
    parts, _ = task.encode(rows, short)
    assert len(parts) > 3
    assert all(2 <= len(part["input_ids"]) <= 9 for part in parts)
    assert [label for part in parts for label in part["labels"][1:]] == whole[0]["labels"][1:]
    batch = task.collate(parts, short, None)
    judged = task.merge(task.postprocess(task.forward(model, batch), batch, short), rows[0], short)
    assert judged["tokens"] == len(whole[0]["labels"]) - 1
    assert task.predict(model, batch, short) == [{}] * len(parts)


def test_a_cut_keeps_the_answer_s_beginning_and_what_comes_right_before(tiny_model):
    task = TextGeneration()
    _, base = prepared(task, tiny_model("llama"), ROWS)
    for limit in (2, 8, 16, 24):
        short = dataclasses.replace(base, max_length=limit)
        for cut, whole in zip(examples_of(task, ROWS, short), examples_of(task, ROWS, base), strict=True):
            assert len(cut["input_ids"]) == len(cut["labels"]) == min(limit, len(whole["input_ids"]))
            assert cut["labels"][cut["start"]] == whole["labels"][whole["start"]]
            assert cut["start"] >= 1
            assert cut["input_ids"][0] == base.processor.bos_token_id
    asked, = examples_of(task, [{"prompt": ROWS[1]["prompt"]}], dataclasses.replace(base, max_length=8))
    assert asked["input_ids"][1:] == examples_of(task, [{"prompt": ROWS[1]["prompt"]}], base)[0]["input_ids"][-7:]


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_a_loss_is_additive_whatever_stands_beside_it(model_type, tiny_model):
    task = TextGeneration()
    model, base = prepared(task, tiny_model(model_type), ROWS)
    examples = examples_of(task, ROWS, base)
    whole = loss(task, model, base, examples)
    alone = [loss(task, model, base, [example]) for example in examples]
    count = counts(task, base, examples)["loss"]
    assert sum(counts(task, base, [example])["loss"] for example in examples) == count
    assert torch.allclose(whole.total, sum(part.total for part in alone), rtol=1e-12)
    batch = task.collate(examples, base, None)
    judged = task.postprocess(task.forward(model, batch), batch, base)
    assert sum(answer["nll"] for answer in judged) == pytest.approx(float(whole.total), rel=1e-12)
    scores = task.score(judged, ROWS, base)
    assert scores["loss"] == pytest.approx(float(whole.total) / count)
    assert scores["perplexity"] == pytest.approx(math.exp(scores["loss"]))
    # by hand, from the model's own logits
    example = examples[0]
    logits = model(input_ids=torch.tensor([example["input_ids"]])).logits[0].log_softmax(-1)
    by_hand = -sum(logits[at - 1, label] for at, label in enumerate(example["labels"]) if label != IGNORED)
    assert torch.allclose(alone[0].total, by_hand, rtol=1e-12)


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_packed_examples_have_the_logits_of_padded_ones(model_type, tiny_model):
    task = TextGeneration(GenerationOptions(packing=True))
    model, base = prepared(task, tiny_model(model_type), ROWS)
    examples, rngs = examples_of(task, ROWS, base), [ExampleRNG(0, 0, row) for row in range(3)]
    batch, beside = task.collate(examples, base, rngs), task.collate(examples, base, None)
    assert batch.inputs["input_ids"].shape == (1, sum(task.num_tokens(example) for example in examples))
    assert "attention_mask" not in batch.inputs
    logits, padded = task.forward(model, batch).logits[0], task.forward(model, beside).logits
    at = 0
    for row, example in enumerate(examples):
        size = task.num_tokens(example)
        assert torch.allclose(logits[at : at + size], padded[row, :size], rtol=1e-9, atol=1e-9)
        at += size
    one, other = loss(task, model, base, examples, rngs), loss(task, model, base, examples)
    assert batch.counts == beside.counts
    assert torch.allclose(one.total, other.total, rtol=1e-12)


def test_packing_is_refused_where_examples_would_see_each_other(tiny_model):
    task = TextGeneration(GenerationOptions(packing=True))
    model, base = prepared(task, tiny_model("llama"), ROWS)

    class Leaky(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, input_ids, position_ids, use_cache):
            return self.inner(input_ids=input_ids)

    leaky = Leaky().train()
    batch = task.collate(examples_of(task, ROWS, base), base, [ExampleRNG(0, 0, row) for row in range(3)])
    with pytest.raises(hubtune.ModelError, match="does not tell examples in one row apart"):
        task.forward(leaky, batch)
    assert leaky.training


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_what_is_written_does_not_depend_on_the_batch(model_type, tiny_model):
    task = TextGeneration(GenerationOptions(max_new_tokens=12))
    model, base = prepared(task, tiny_model(model_type, initializer_range=0.5), ROWS)
    examples = examples_of(task, [{"prompt": row["prompt"]} for row in ROWS], base)
    together = task.predict(model, task.collate(examples, base, None), base)
    assert together == [task.predict(model, task.collate([e], base, None), base)[0] for e in examples]
    assert len({answer["text"] for answer in together}) > 1
    ids = torch.tensor([examples[0]["input_ids"]])
    by_hand = []
    for _ in range(12):
        by_hand.append(int(model(input_ids=ids).logits[0, -1].argmax()))
        if by_hand[-1] == base.processor.eos_token_id:
            break
        ids = torch.cat([ids, torch.tensor([by_hand[-1:]])], 1)
    assert together[0]["text"] == base.processor.decode(by_hand, skip_special_tokens=True).strip()
    full = dataclasses.replace(base, max_length=128)  # a prompt as long as the model takes
    long, = examples_of(task, [{"prompt": "soup " * 200}], full)
    assert isinstance(task.predict(model, task.collate([long], full, None), full)[0]["text"], str)


def test_what_a_model_that_reads_padding_writes_does_not_depend_on_the_batch(tiny_model):
    """Deaf to its mask, as this one is made: then only prompts of one length meet."""
    task = TextGeneration(GenerationOptions(max_new_tokens=6))
    model, base = prepared(task, tiny_model("llama", initializer_range=0.5), ROWS)
    model.model.register_forward_pre_hook(
        lambda module, given, named: (given, {**named, "attention_mask": None}), with_kwargs=True)
    examples = examples_of(task, [{"prompt": row["prompt"]} for row in ROWS], base)
    assert sequences.reads_padding(model, base, [example["input_ids"] for example in examples])
    together = task.predict(model, task.collate(examples, base, None), base)
    assert together == [task.predict(model, task.collate([e], base, None), base)[0] for e in examples]


def test_labelled_rows_are_written_for_only_when_asked(tiny_model):
    for generate in (False, True):
        task = TextGeneration(GenerationOptions(max_new_tokens=4, generate=generate))
        model, base = prepared(task, tiny_model("llama"), ROWS)
        batch = task.collate(examples_of(task, ROWS, base), base, None)
        written = task.predict(model, batch, base)
        assert [set(answer) for answer in written] == [{"text"} if generate else set()] * 3
        judged = task.postprocess(task.forward(model, batch), batch, base)
        both = [one | other for one, other in zip(judged, written, strict=True)]
        assert ("exact_match" in task.score(both, ROWS, base)) is generate
        gold = [gold_answer(task, row, base) for row in ROWS]
        assert task.score(gold, ROWS, base) == {
            "loss": 0.0, "token_accuracy": 1.0, "perplexity": 1.0, "exact_match": 1.0}
    with pytest.raises(DataError, match="no answers to compare with"):
        task.score(written, ROWS, base)
    assert task.show(both[0]) == {"text": both[0]["text"]}


def test_a_pad_token_is_set_without_a_new_word(tiny_model):
    task = TextGeneration()
    before = AutoTokenizer.from_pretrained(tiny_model("gpt2"))
    _, base = prepared(task, tiny_model("gpt2"), ROWS)
    assert before.pad_token is None
    assert base.processor.pad_token == base.processor.eos_token
    assert len(base.processor) == len(before)
    sampled = sample(task, 6)
    assert encoding.encode(task, sampled, base, 60).rows == 6


def test_an_encoder_is_made_to_look_back_only(tiny_model, tmp_path):
    task = TextGeneration()
    shutil.copytree(tiny_model("bert"), tmp_path / "bert")
    AutoModelForMaskedLM.from_pretrained(tmp_path / "bert").save_pretrained(tmp_path / "bert")  # with a head over words
    model, base = prepared(task, tmp_path / "bert", ROWS)
    ids = torch.tensor([base.processor("What a lovely day").input_ids])
    other = ids.clone()
    other[0, -1] = ids[0, 1]
    assert torch.allclose(model(input_ids=ids).logits[:, :-1], model(input_ids=other).logits[:, :-1], atol=1e-12)


class TestConformance(TaskConformance):
    plugin = TextGeneration


def test_a_pipeline_without_arguments_ends_answers_where_they_end(tiny_model, tmp_path):
    rows = [{"prompt": f"Is it {n}?", "completion": "It is a kind waiter."} for n in range(12)]
    rows += [{"prompt": "All?", "completion": " ".join(["the kind waiter"] * 60)}]
    hubtune.train("text-generation", model=tiny_model("gpt2"), data=rows, out=tmp_path / "run",
                  set={"train.max_steps": 1, "train.verify": False, "train.precision": "fp32"})
    found = json.loads((tmp_path / "run" / "model" / "generation_config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert model.generation_config.max_new_tokens == found["max_new_tokens"]
    assert found["max_new_tokens"] >= sequences.LEAST
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert tokenizer.eos_token_id in found["eos_token_id"]
