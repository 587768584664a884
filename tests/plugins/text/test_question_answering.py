"""Question answering: answers found again through tokens and windows, SQuAD's metrics, answers that are not there."""

import json
import random

import pytest
import torch
from hubtune_plugins.text.question_answering import AnsweringOptions, QuestionAnswering
from hubtune_plugins.text.tokens.answers import NOTHING, answers_of, squad
from tiny import answers, gold_answer, losses_add_up, prepared, sample

import hubtune
from hubtune.data import encoding
from hubtune.errors import DataError

TYPES = ["bert", "roberta", "gpt2", "t5", "bart", "deberta-v2", "modernbert", "xlnet", "distilbert"]
ROWS = sample(QuestionAnswering(), 7)
ROWS[2] = {**ROWS[2], "context": "The kettle broke. " * 9 + ROWS[2]["context"], "answers": ROWS[2]["answers"]["text"]}


@pytest.mark.parametrize("model_type", TYPES)
def test_the_tokens_of_an_answer_spell_it_in_every_window(model_type, tiny_model):
    task = QuestionAnswering(AnsweringOptions(stride=6))
    _, base, _ = prepared(task, tiny_model(model_type), ROWS)
    for limit in (None, 40):
        encoded = encoding.encode(task, ROWS, base, limit)
        assert limit is None or encoded.sizes.max() <= limit
        for row, items in zip(ROWS, encoded.examples_by_row(), strict=True):
            spelled = []
            for example in (encoded.examples[i] for i in items):
                first, last = example["target"]
                assert example["places"].count(list(NOTHING)) == 1
                if example["places"][first] != list(NOTHING):
                    spelled.append(row["context"][example["places"][first][0] : example["places"][last][1]].strip())
            [(text, _), *_] = answers_of(row["answers"], row["context"])
            assert spelled
            assert set(spelled) <= {text, f"{text}.", f"{text},"}  # pieces may hold the point that follows
        assert (len(encoded.examples_by_row()[2]) > 1) == (limit is not None)


@pytest.mark.parametrize("model_type", TYPES)
def test_losses_and_answers_do_not_depend_on_the_batch(model_type, tiny_model):
    task = QuestionAnswering(AnsweringOptions(stride=6))
    model, base, encoded = prepared(task, tiny_model(model_type), ROWS, limit=60)
    losses_add_up(task, model, base, encoded.examples)
    whole = answers(task, model, base, ROWS)
    for index in (0, 2, 5):
        unlabelled = {key: value for key, value in ROWS[index].items() if key != "answers"}
        [alone] = answers(task, model, base, [unlabelled])
        assert alone["answer"] == whole[index]["answer"]
        assert alone["score"] == pytest.approx(whole[index]["score"], abs=1e-9)
        assert ROWS[index]["context"][alone["start"] : alone["end"]] == alone["answer"] != ""
    json.dumps(whole, allow_nan=False)


def test_the_best_span_is_the_likeliest_that_is_short_enough(tiny_model):
    """Against a search through all pairs."""
    task = QuestionAnswering(AnsweringOptions(max_answer_length=4))
    model, base, encoded = prepared(task, tiny_model("bert"), ROWS[3:6], limit=None)
    batch = task.collate(encoded.examples, base, None)
    with torch.no_grad():
        outputs = task.forward(model, batch)
    for found, example, starts, ends in zip(
        task.postprocess(outputs, batch, base), encoded.examples, outputs.start_logits, outputs.end_logits, strict=True
    ):
        places = example["places"]
        inside = [n for n, place in enumerate(places) if place and place != NOTHING]
        pairs = [(float(starts[a] + ends[b]), places[a][0], places[b][1]) for a in inside for b in inside if a <= b < a + 4]
        assert max(pairs)[1:] == (found["start"], found["end"])


def test_answers_of_windows_are_compared_and_none_may_win(tiny_model):
    parts = [{"start": 0, "end": 3, "log": -2.0, "null": -1.5}, {"start": 4, "end": 8, "log": -1.0, "null": -3.0}]
    row = {"context": "One four"}
    assert QuestionAnswering().merge(parts, row, None)["answer"] == "four"
    for threshold, answer in ((-3.0, ""), (0.0, "four")):
        task = QuestionAnswering(AnsweringOptions(unanswerable=True, null_threshold=threshold))
        assert task.merge(parts, row, None)["answer"] == answer
    parts[1]["null"] = -0.5
    assert QuestionAnswering(AnsweringOptions(unanswerable=True)).merge(parts, row, None)["answer"] == "four"
    parts[0]["null"] = -0.5
    assert QuestionAnswering(AnsweringOptions(unanswerable=True)).merge(parts, row, None)["answer"] == ""


def test_a_question_that_is_too_long_leaves_room_for_the_context(tiny_model):
    task = QuestionAnswering()
    row = {**ROWS[0], "question": "Where is the river? " * 30}
    model, base, _ = prepared(task, tiny_model("bert"), [row], limit=None)
    encoded = encoding.encode(task, [row], base, 32)
    assert encoded.sizes.max() <= 32
    assert all(sum(place is not None for place in example["places"]) > 4 for example in encoded.examples[:-1])
    assert any(example["places"][example["target"][0]] != NOTHING for example in encoded.examples)
    assert answers(task, model, base, [row], limit=32)[0]["answer"]


@pytest.mark.parametrize(("value", "found"), [
    ({"text": ["sea"], "answer_start": [4]}, [("sea", 4)]),
    ({"text": "sea", "answer_start": 4}, [("sea", 4)]),
    ([{"text": "sea", "answer_start": 4}, {"text": "The", "answer_start": 0}], [("sea", 4), ("The", 0)]),
    ("sea", [("sea", 4)]),
    (["sea", "The"], [("sea", 4), ("The", 0)]),
    ("lake", [("lake", -1)]),
    ({"text": [], "answer_start": []}, []),
    ([], []),
])
def test_answers_are_read_in_every_form(value, found):
    assert answers_of(value, "The sea.") == found


def test_rows_that_cannot_be_learnt_are_named():
    good = {"question": "Where?", "context": "The sea.", "answers": "sea"}
    for bad, said in (("lake", "do not stand"), ({"text": ["sea"], "answer_start": [3]}, "do not stand"),
                      ({"text": [], "answer_start": []}, "have no answer")):
        with pytest.raises(DataError, match=f"{said}.*row 2 of train"):
            QuestionAnswering().validate_data({"train": [good, {**good, "answers": bad}]})
    task = QuestionAnswering(AnsweringOptions(unanswerable=True))
    assert task.validate_data({"train": [good, {**good, "answers": {"text": [], "answer_start": []}}]}) == {}


def test_the_right_answers_score_best(tiny_model):
    task = QuestionAnswering(AnsweringOptions(unanswerable=True))
    rows = [*ROWS, {**ROWS[0], "answers": {"text": [], "answer_start": []}}]
    model, base, _ = prepared(task, tiny_model("bert"), rows)
    gold = [gold_answer(task, row, base) for row in rows]
    assert task.score(gold, rows, base) == {"exact_match": 1.0, "f1": 1.0}
    assert task.score([*gold[:-1], {"answer": "the sea"}], rows, base) == {"exact_match": 7 / 8, "f1": 7 / 8}
    assert task.score(answers(task, model, base, rows), rows, base)["exact_match"] < 0.5
    assert squad("the Old Town!", ("old town", "sea")) == {"exact_match": 1.0, "f1": 1.0}
    assert squad("in old town", ("old town",)) == pytest.approx({"exact_match": 0.0, "f1": 0.8})


def test_scores_agree_with_torchmetrics():
    library = pytest.importorskip("torchmetrics.functional.text").squad
    draw = random.Random(0)
    words = ["the", "A", "an", "town", "Old", "sea.", "it's", "4,000", "\u2013", "the\u2013sea", "caf\u00e9", "town", "(old)"]
    texts = [" ".join(draw.choices(words, k=draw.randrange(5))) for _ in range(400)]
    for answer in texts:
        gold = tuple(draw.choices(texts, k=draw.randrange(4)))
        target = {"answers": {"text": list(gold) or [""], "answer_start": [0] * max(1, len(gold))}, "id": "0"}
        expected = library([{"prediction_text": answer, "id": "0"}], [target])
        assert squad(answer, gold) == pytest.approx({name: float(value) / 100 for name, value in expected.items()})


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta"])
def test_the_snippet_gives_the_same_answer(model_type, tiny_model, tmp_path, capsys):
    task = QuestionAnswering()
    model, base, _ = prepared(task, tiny_model(model_type), ROWS)
    model.to(torch.float32).save_pretrained(tmp_path)
    base.processor.save_pretrained(tmp_path)
    snippet, names = task.usage(str(tmp_path), base), {}
    exec(snippet, names)
    task = QuestionAnswering(AnsweringOptions(max_answer_length=99))
    [ours] = answers(task, model, base, [{"question": names["question"], "context": names["context"]}], limit=None)
    assert capsys.readouterr().out.strip() == ours["answer"]


def test_training_learns_to_answer(tiny_model, tmp_path):
    rows = sample(QuestionAnswering(), 48)
    # The rows repeat, and copies are never held out from train: what was learnt is asked again.
    run = hubtune.train("question-answering", model=tiny_model("bert"), data={"train": rows, "validation": rows[:12]},
                        out=tmp_path / "run", set={"train.epochs": 15.0, "train.learning_rate": 3e-3})
    assert run.metrics["f1"] > 0.7
    [found] = run.predict([{key: rows[0][key] for key in ("question", "context")}])
    assert found["answer"] == rows[0]["answers"]["text"][0]
