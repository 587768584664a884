"""Multiple choice: any number of choices a row, labels in every form, context before its question."""

import json

import pytest
import torch
from hubtune_plugins.text.choices import named, texts_of
from hubtune_plugins.text.multiple_choice import MultipleChoice
from tiny import answers, gold_answer, losses_add_up, prepared, sample

import hubtune
from hubtune.errors import DataError

TYPES = ["bert", "roberta", "deberta-v2", "modernbert", "xlnet", "distilbert"]
ROWS = sample(MultipleChoice(), 9)


@pytest.mark.parametrize("model_type", TYPES)
def test_losses_and_answers_do_not_depend_on_the_batch(model_type, tiny_model):
    task = MultipleChoice()
    assert {len(row["choices"]) for row in ROWS} == {3, 4}
    model, base, encoded = prepared(task, tiny_model(model_type), ROWS)
    losses_add_up(task, model, base, encoded.examples)
    whole = answers(task, model, base, ROWS)
    for row, together in zip(ROWS[:4], whole, strict=False):
        [alone] = answers(task, model, base, [{"question": row["question"], "choices": row["choices"]}])
        assert len(alone["probabilities"]) == len(row["choices"])
        assert sum(alone["probabilities"]) == pytest.approx(1)
        assert alone["probabilities"] == pytest.approx(together["probabilities"], abs=1e-9)
        assert row["choices"][alone["label"]] == alone["choice"]
    json.dumps(whole, allow_nan=False)


@pytest.mark.parametrize(("label", "choices", "index"), [
    (1, ["x", "y"], 1),
    ("1", ["x", "y"], 1),
    (1.0, ["x", "y"], 1),
    ("y", ["x", "y"], 1),
    ("B", ["x", "y"], 1),
    ("b", ["x", "y"], 1),
    ("b", ["b", "a"], 0),
    ("2", ["1", "2", "3"], 1),
    (2, ["1", "2", "3"], 2),
    ("y", '["x", "y"]', 1),
    ("2", {"text": ["x", "y"], "label": ["1", "2"]}, 1),
    ("C", {"text": ["x", "y"], "label": ["C", "D"]}, 0),
    (2, ["x", "y"], None),
    ("z", ["x", "y"], None),
    (-1, ["x", "y"], None),
])
def test_labels_are_read_in_every_form(label, choices, index):
    assert named({"label": label, "choices": choices}) == index


def test_rows_that_cannot_be_learnt_are_named():
    good = {"question": "q", "choices": ["x", "y"], "label": 0}
    for bad, said in (({"label": 2}, "2 is none of the choices: row 2 of train"),
                      ({"choices": ["x"]}, "1 rows have fewer than two choices: row 2 of train"),
                      ({"choices": "x, y"}, "fewer than two choices: row 2 of train")):
        with pytest.raises(DataError, match=said):
            MultipleChoice().validate_data({"train": [good, {**good, **bad}]})


def test_a_context_stands_before_the_question_and_is_what_is_cut(tiny_model):
    task = MultipleChoice()
    rows = [{**row, "context": "The kettle broke. " * 20} for row in ROWS]
    _, base, encoded = prepared(task, tiny_model("bert"), rows, limit=80)
    assert max(map(task.length, encoded.examples)) == 80
    for row, example in zip(rows, encoded.examples, strict=True):
        for choice, fed in zip(row["choices"], example["texts"], strict=True):
            second = base.processor(f"{row['question']} {choice}", add_special_tokens=False)["input_ids"]
            assert fed["input_ids"][-len(second) - 1 : -1] == second


def test_the_right_answers_score_best(tiny_model):
    task = MultipleChoice()
    model, base, _ = prepared(task, tiny_model("bert"), ROWS)
    gold = [gold_answer(task, row, base) for row in ROWS]
    assert task.score(gold, ROWS, base) == {"accuracy": 1.0}
    assert task.score([*gold[:-1], {"label": (gold[-1]["label"] + 1) % 3}], ROWS, base) == {"accuracy": 8 / 9}
    assert task.report(gold, ROWS, base)["chance"] == pytest.approx((5 / 3 + 4 / 4) / 9)
    assert {key: type(value) for key, value in gold[0].items()} == {
        key: type(value) for key, value in answers(task, model, base, ROWS[:1])[0].items()}


def test_the_snippet_chooses_the_same(tiny_model, tmp_path, capsys):
    task = MultipleChoice()
    model, base, _ = prepared(task, tiny_model("bert"), ROWS)
    model.to(torch.float32).save_pretrained(tmp_path)
    base.processor.save_pretrained(tmp_path)
    names = {}
    exec(task.usage(str(tmp_path), base), names)
    [ours] = answers(task, model, base, [{"question": names["question"], "choices": names["choices"]}])
    assert capsys.readouterr().out.startswith(ours["choice"])
    assert texts_of(json.dumps(names["choices"])) == names["choices"]


def test_training_learns_to_choose(tiny_model, tmp_path):
    rows = sample(MultipleChoice(), 48)
    run = hubtune.train("multiple-choice", model=tiny_model("bert"), data=rows, out=tmp_path / "run",
                        set={"train.epochs": 15.0, "train.learning_rate": 3e-3, "data.validation": 0.25})
    assert run.metrics["accuracy"] > 0.8
    assert run.predict([{key: rows[0][key] for key in ("question", "choices")}])[0]["label"] == rows[0]["label"]
