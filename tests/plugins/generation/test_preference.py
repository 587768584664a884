"""Preference: the loss of DPO by hand, the reference of the untrained model, and what is scored with it and without."""

import dataclasses
import math

import pytest
import torch
from hubtune_plugins.generation.preference import Preference, PreferenceOptions
from tiny import counts, gold_answer

import hubtune
from hubtune import DataError
from hubtune.hub.origin import local_origin
from hubtune.models import configuration, loading
from hubtune.testing import TaskConformance

ROWS = [
    {"prompt": "Where is the hotel?", "chosen": "Near the station.",
     "rejected": "It is a chair, and a good one besides."},
    {"prompt": "What broke?", "chosen": "The kettle. Never again.", "rejected": "Soup."},
    {"prompt": "How many legs?", "chosen": "Four legs, one seat, grey.", "rejected": "Cold food, rude staff."},
]


def prepared(task, folder, rows=ROWS, seed=0):
    origin = local_origin(folder)
    base = configuration.open_base(origin, task)
    base = configuration.apply_setup(base, task.model_config(task.validate_data({"train": rows}), base))
    model = loading.load(origin, base, task, hubtune.Strategy(), seed=0).model.double().eval()
    return model, base, [example for examples in task.encode(rows, base) for example in examples]


def moved(model):
    """The model after some steps, as it were."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return model


def annotated(task, model, base, examples):
    with torch.no_grad():
        batch = task.collate(examples, base, None)
        notes = task.reference_outputs(task.forward(model, batch), batch, base)
    return [{**example, **note} for example, note in zip(examples, notes, strict=True)]


def by_hand(model, base, row, side):
    """log p(answer, end | prompt) from the published template and the model alone."""
    said = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}]
    asked = base.processor.apply_chat_template(said[:1], add_generation_prompt=True, return_dict=False)
    ids = base.processor.apply_chat_template(said, return_dict=False)
    newline = base.processor("\n", add_special_tokens=False).input_ids
    assert ids[-len(newline):] == newline
    ids = ids[: -len(newline)]
    logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(logits[at - 1, ids[at]] for at in range(len(asked), len(ids))).detach()


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_dpo(model_type, smoothing, tiny_model):
    task = Preference(PreferenceOptions(beta=0.3, label_smoothing=smoothing))
    model, base, examples = prepared(task, tiny_model(model_type))
    examples = annotated(task, model, base, examples)
    before = [[float(by_hand(model, base, row, side)) for side in ("chosen", "rejected")] for row in ROWS]
    for example, pair in zip(examples, before, strict=True):
        assert example["reference"] == pytest.approx(pair, rel=1e-10)
    model = moved(model)
    total = 0.0
    for row, (chosen, rejected) in zip(ROWS, before, strict=True):
        now = [float(by_hand(model, base, row, side)) for side in ("chosen", "rejected")]
        margin = 0.3 * ((now[0] - chosen) - (now[1] - rejected))
        right, wrong = 1 / (1 + math.exp(-margin)), 1 / (1 + math.exp(margin))
        total -= (1 - smoothing) * math.log(right) + smoothing * math.log(wrong)
    batch = task.collate(examples, base, None)
    assert batch.size == 3
    assert batch.inputs["input_ids"].shape[0] == 6
    term, = task.loss(task.forward(model, batch), batch)
    assert batch.counts["loss"] == 3
    # tensors of a batch are fp32: so is the reference
    assert float(term.total.detach()) == pytest.approx(total, rel=1e-5)


def test_before_the_first_step_no_answer_is_preferred(tiny_model):
    task = Preference()
    model, base, examples = prepared(task, tiny_model("llama"))
    batch = task.collate(annotated(task, model.float(), base, examples), base, None)
    outputs = task.forward(model, batch)
    assert float(task.loss(outputs, batch)[0].total.detach()) == pytest.approx(3 * math.log(2), rel=1e-6)
    scores = task.score(task.postprocess(outputs, batch, base), ROWS, base)
    assert scores["reward_accuracy"] == 0.5
    assert scores["reward_margin"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("reference", [True, False])
def test_terms_are_additive_whatever_stands_beside_a_pair(reference, tiny_model):
    task = Preference(PreferenceOptions(sft=0.5))
    model, base, examples = prepared(task, tiny_model("llama"))
    if reference:
        examples = annotated(task, model, base, examples)
    model = moved(model)

    def terms(chosen):
        batch = task.collate(chosen, base, None)
        found = task.loss(task.forward(model, batch), batch)
        assert list(batch.counts) == [term.name for term in found]
        return [dataclasses.replace(term, total=term.total.detach()) for term in found]

    whole, parts = terms(examples), [terms([example]) for example in examples]
    for number, name in enumerate(("loss", "sft")):
        added = parts[0][number] + parts[1][number] + parts[2][number]
        assert added.name == name
        assert counts(task, base, examples)[name] == sum(counts(task, base, [example])[name] for example in examples)
        assert torch.allclose(added.total, whole[number].total, rtol=1e-12)
    assert whole[1].weight == 0.5
    said = sum(by_hand(model, base, row, "chosen") for row in ROWS)
    assert torch.allclose(whole[1].total, -said, rtol=1e-10)


def test_scores_with_a_reference_and_without(tiny_model):
    task = Preference()
    model, base, examples = prepared(task, tiny_model("llama"))
    noted = annotated(task, model, base, examples)
    model = moved(model)
    scores = {}
    for name, items in (("with", noted), ("without", examples)):
        batch = task.collate(items, base, None)
        with torch.no_grad():
            scores[name] = task.score(task.postprocess(task.forward(model, batch), batch, base), ROWS, base)
    assert set(scores["with"]) == {"accuracy", "reward_accuracy", "reward_margin"}
    assert set(scores["without"]) == {"accuracy"}
    assert scores["with"]["accuracy"] == scores["without"]["accuracy"] == sum(
        bool(by_hand(model, base, row, "chosen") > by_hand(model, base, row, "rejected")) for row in ROWS) / 3
    gold = [gold_answer(task, row, base) for row in ROWS]
    assert task.score(gold, ROWS, base) == {"accuracy": 1.0, "reward_accuracy": 1.0, "reward_margin": 100.0}


def test_dpo_learns_the_pairs(tiny_model):
    task = Preference()
    model, base, examples = prepared(task, tiny_model("llama"))
    model = model.float()
    batch = task.collate(annotated(task, model, base, examples), base, None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(15):
        loss = task.loss(task.forward(model, batch), batch)[0].total / 3
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    scores = task.score(task.postprocess(task.forward(model, batch), batch, base), ROWS, base)
    assert scores["reward_accuracy"] == 1.0
    assert float(loss.detach()) < 0.5 * math.log(2)


def test_answers_may_be_conversations_and_predictions_see_the_prompt_alone(tiny_model):
    task = Preference(PreferenceOptions(max_new_tokens=4))
    model, base, examples = prepared(task, tiny_model("gpt2"))
    user = {"role": "user", "content": ROWS[0]["prompt"]}
    talk = [{"prompt": ROWS[0]["prompt"], **{
        side: [user, {"role": "assistant", "content": ROWS[0][side]}] for side in ("chosen", "rejected")}}]
    assert [examples[0]] == [example for found in task.encode(talk, base) for example in found]
    assert [column.role for column in Preference.columns if column.target] == ["chosen", "rejected"]
    asked, = next(iter(task.encode([{"prompt": ROWS[0]["prompt"]}], base)))
    assert asked["input_ids"] == examples[0]["chosen"]["input_ids"][: examples[0]["chosen"]["start"]]
    assert task.num_tokens(examples[0]) == sum(len(examples[0][side]["input_ids"]) for side in ("chosen", "rejected"))
    batch = task.collate([asked], base, None)
    assert set(task.predict(model, batch, base)[0]) == {"text"}
    assert task.predict(model, task.collate(examples, base, None), base) == [{}] * 3
    with pytest.raises(DataError, match="row 2 of train"):
        task.validate_data({"train": [ROWS[0], {**ROWS[1], "rejected": ROWS[1]["chosen"]}, ROWS[2]]})


class TestConformance(TaskConformance):
    plugin = Preference
