"""Reward model: the loss by hand, every form of TRL's pairs, what is read of a decoder, and scores of single texts."""

import math

import pytest
import torch
from hubtune_plugins.generation.pairs import rewards
from hubtune_plugins.generation.reward_model import RewardModel, RewardOptions
from tiny import answers, losses_add_up, prepared

from hubtune import DataError
from hubtune.testing import TaskConformance

ROWS = [
    {"prompt": "Where is the hotel?", "chosen": "Near the station.", "rejected": "It is a chair, and a good one besides.", "margin": 0.5},
    {"prompt": "What broke?", "chosen": "The kettle. Never again.", "rejected": "Soup.", "margin": 0.0},
    {"prompt": "Who walks by the river on a lovely day?", "chosen": "I do.", "rejected": "Nobody.", "margin": 1.0},
]
USER = {"role": "user", "content": "What broke?"}


def reply(text):
    return {"role": "assistant", "content": text}


class TestConformance(TaskConformance):
    plugin = RewardModel


class TestDecoder(TaskConformance):
    plugin = RewardModel
    options = {"centering": 0.01}
    model = "llama"


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlnet", "gpt2", "llama"])
def test_the_loss_is_that_of_bradley_and_terry(model_type, tiny_model):
    task = RewardModel(RewardOptions(centering=0.1))
    model, base, encoded = prepared(task, tiny_model(model_type), ROWS)
    batch = task.collate(encoded.examples, base, None)
    terms = {term.name: term for term in task.loss(task.forward(model, batch), batch)}
    scores = [[answers(task, model, base, [{"prompt": row["prompt"], "completion": row[side]}])[0]["score"]
               for side in ("chosen", "rejected")] for row in ROWS]
    expected = sum(math.log1p(math.exp(-(chosen - rejected - row["margin"]))) for row, (chosen, rejected) in zip(ROWS, scores, strict=True))
    assert float(terms["loss"].total.detach()) == pytest.approx(expected, rel=1e-6)
    assert float(terms["centering"].total.detach()) == pytest.approx(sum((one + other) ** 2 for one, other in scores), rel=1e-6, abs=1e-9)
    assert terms["centering"].weight == 0.1
    found = answers(task, model, base, ROWS)
    assert [[one["chosen"], one["rejected"]] for one in found] == [pytest.approx(pair) for pair in scores]
    wins = sum(chosen > rejected for chosen, rejected in scores)
    assert task.score(found, ROWS, base) == pytest.approx(
        {"accuracy": wins / 3, "margin": sum(chosen - rejected for chosen, rejected in scores) / 3})


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_losses_do_not_depend_on_the_pairs_beside(model_type, tiny_model):
    task = RewardModel()
    task.loss = lambda outputs, batch: RewardModel.loss(task, outputs, batch)[0]
    model, base, encoded = prepared(task, tiny_model(model_type), ROWS)
    losses_add_up(task, model, base, encoded.examples)


def test_every_form_of_a_pair_is_the_same_example(tiny_model):
    task = RewardModel()
    _, base, encoded = prepared(task, tiny_model("llama"), ROWS[1:2])
    explicit = {"prompt": [USER], "chosen": [reply(ROWS[1]["chosen"])], "rejected": [reply(ROWS[1]["rejected"])]}
    implicit = {side: [USER, reply(ROWS[1][side])] for side in ("chosen", "rejected")}
    whole = {"prompt": "What broke?", **implicit}
    for row in (explicit, implicit, whole):
        task.validate_data({"train": [row]})
        [[example]] = task.encode([row], base)
        assert example["texts"] == encoded.examples[0]["texts"]
    asked = [{"messages": [USER, reply("Soup.")]}, {"prompt": "What broke?", "completion": "Soup."}]
    assert [example["texts"] for [example] in task.encode(asked, base)] == [[encoded.examples[0]["texts"][1]]] * 2


def test_plain_texts_end_in_the_end_token_and_keep_their_end(tiny_model):
    task = RewardModel()
    _, base, _ = prepared(task, tiny_model("llama"), [{"chosen": "a good day", "rejected": "soup"}])
    [[example]] = task.encode([{"chosen": "a good day", "rejected": "soup"}], base)
    assert len(example["texts"]) == 2
    assert all(text["input_ids"][0] == base.processor.bos_token_id for text in example["texts"])
    assert all(text["input_ids"][-1] == base.processor.eos_token_id for text in example["texts"])


@pytest.mark.parametrize(("model_type", "first", "last"), [("bert", "[CLS]", "[SEP]"), ("roberta", "<s>", "</s>"), ("llama", "<s>", "</s>"), ("xlnet", None, "<cls>")])
def test_conversations_stand_between_the_special_tokens_of_the_model_once(model_type, first, last, tiny_model):
    task = RewardModel()
    _, base, encoded = prepared(task, tiny_model(model_type), ROWS)
    tokens = base.processor.convert_ids_to_tokens(encoded.examples[0]["texts"][0]["input_ids"])
    assert first is None or (tokens[0] == first and tokens.count(first) == 1)
    assert tokens[-1] == last
    assert tokens.count(last) == 1
    assert rewards.frame(base)[0] == ([] if first is None else base.processor.convert_tokens_to_ids([first]))


def test_a_decoder_is_read_at_the_end_token_of_the_answer(tiny_model):
    task = RewardModel()
    model, base, encoded = prepared(task, tiny_model("llama"), ROWS)
    batch = task.collate(encoded.examples, base, None)
    with torch.no_grad():
        hidden = model.model(batch.inputs["input_ids"], attention_mask=batch.inputs["attention_mask"]).last_hidden_state
        ends = batch.inputs["attention_mask"].sum(1) - 1
        expected = model.score(hidden[torch.arange(len(ends)), ends])
        assert torch.allclose(task.forward(model, batch).logits, expected)
    assert set(batch.inputs["input_ids"][torch.arange(len(ends)), ends].tolist()) == {base.processor.eos_token_id}


@pytest.mark.parametrize(("row", "message"), [
    ({"chosen": "same", "rejected": "same"}, "row 2 of train"),
    ({"chosen": "good", "rejected": "  "}, "row 2 of train"),
    ({"prompt": "Why?", "chosen": "good", "rejected": ""}, "row 2 of train"),
    ({"chosen": [USER], "rejected": [USER, reply("Soup.")]}, "row 2 of train"),
])
def test_pairs_that_cannot_be_learnt_are_refused(row, message):
    with pytest.raises(DataError, match=message):
        RewardModel().validate_data({"train": [ROWS[0], row]})


def test_rows_without_pairs_are_refused():
    with pytest.raises(DataError, match="chosen and a rejected"):
        RewardModel().validate_data({"train": [{"prompt": "a"}]})


def test_the_usage_gives_the_score_of_the_task(tiny_model, tmp_path):
    task = RewardModel()
    model, base, _ = prepared(task, tiny_model("llama"), ROWS, dtype=torch.float32)
    model.save_pretrained(tmp_path)
    base.processor.save_pretrained(tmp_path)
    seen = {}
    exec(task.usage(str(tmp_path), base), seen)
    [expected] = answers(task, model, base, [{"messages": seen["messages"]}])
    assert seen["score"] == pytest.approx(expected["score"], abs=1e-5)
