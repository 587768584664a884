"""Token classification: spans as seqeval counts them, words at their first pieces, windows that agree."""

import random
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from hubtune_plugins.text.token_classification import TokenClassification, TokenOptions
from hubtune_plugins.text.tokens.tags import iob2, learnt, span_scores, span_table, spans
from hubtune_plugins.text.tokens.windows import first_pieces, windows
from tiny import answers, gold_answer, losses_add_up, prepared, sample
from transformers import pipeline

import hubtune
from hubtune.errors import DataError
from hubtune.hub.origin import local_origin
from hubtune.models import configuration

TYPES = ["bert", "roberta", "gpt2", "llama", "t5", "deberta-v2", "modernbert", "xlnet", "distilbert"]
WORDS = ["What", "a", "lovely", "day", ",", "the", "kettle", "broke", "!", "312", "Zürich-soup", "\u200b", "in", "🙂", "town"]


def random_tags(draw, prefixes, length):
    return [draw.choice(["O", *(f"{p}-{kind}" for p in prefixes for kind in ("a", "b"))]) for _ in range(length)]


@pytest.mark.parametrize("prefixes", ["BI", "I", "BIES"])
def test_spans_are_those_of_seqeval(prefixes):
    seqeval = pytest.importorskip("seqeval.metrics")
    from seqeval.metrics.sequence_labeling import get_entities

    draw = random.Random(prefixes)
    gold, found = [], []
    for _ in range(300):
        length = draw.randint(1, 12)
        gold.append(random_tags(draw, prefixes, length))
        found.append([tag if draw.random() < 0.6 else other for tag, other in
                      zip(gold[-1], random_tags(draw, prefixes, length), strict=True)])
        assert [(kind, start, end - 1) for kind, start, end in spans(tuple(gold[-1]))] == get_entities(gold[-1])
        assert spans(tuple(iob2(gold[-1]))) == spans(tuple(gold[-1]))
    ours = span_scores(gold, found)
    assert 0.05 < ours["f1"] < 0.95
    assert ours == pytest.approx({"precision": seqeval.precision_score(gold, found), "recall": seqeval.recall_score(gold, found),
                                  "f1": seqeval.f1_score(gold, found)})
    theirs = seqeval.classification_report(gold, found, output_dict=True, zero_division=0)
    for kind, line in span_table(gold, found).items():
        assert line == pytest.approx({**{k: theirs[kind][k] for k in ("precision", "recall", "support")},
                                      "f1": theirs[kind]["f1-score"]})


@pytest.mark.parametrize(("tags", "written"), [
    ("B-x I-x O B-x", "B-x I-x O B-x"),
    ("I-x I-x O I-x", "B-x I-x O B-x"),
    ("B-x E-x O S-x", "B-x I-x O B-x"),
    ("B-x L-x O U-x", "B-x I-x O B-x"),
    ("I-x B-x O I-x", "B-x B-x O B-x"),
])
def test_every_scheme_is_learnt_in_iob2(tags, written):
    task = TokenClassification()
    rows = [{"tokens": "a b c d", "tags": tags}, {"tokens": ["e"], "tags": ["O"]}]
    dataset_info = task.validate_data({"train": rows, "test": rows})
    assert dataset_info == {
        "scheme": "bio", "labels": ["O", "B-x", "I-x"], "counts": Counter([*written.split(), "O"])}
    assert learnt(tags.split(), "bio") == written.split()


def test_tags_of_words_and_bare_types():
    rows = [{"tokens": "a b c", "tags": [10, 2, 2]}, {"tokens": "a b", "tags": ["2", 10]}]
    assert TokenClassification().validate_data({"train": rows}) == {
        "scheme": "words", "labels": ["2", "10"], "counts": {"2": 3, "10": 2}}
    rows = [{"tokens": "a b c", "tags": "person person O"}]
    assert TokenClassification().validate_data({"train": rows})["scheme"] == "words"
    task = TokenClassification(TokenOptions(scheme="io"))
    assert task.validate_data({"train": rows})["labels"] == ["O", "B-person", "I-person"]
    assert learnt(["person", "person", "O"], "io") == ["B-person", "I-person", "O"]


@pytest.mark.parametrize(("row", "said"), [
    ({"tokens": ["a", "b"], "tags": ["O"]}, "number of tags"),
    ({"tokens": ["a"], "tags": [None]}, "without a tag"),
    ({"tokens": [" "], "tags": ["O"]}, "no words"),
])
def test_rows_that_cannot_be_learnt_are_named(row, said):
    good = {"tokens": ["a", "b"], "tags": ["B-x", "O"]}
    with pytest.raises(DataError, match=rf"1 rows have .*{said}.*row 2 of validation"):
        TokenClassification().validate_data({"train": [good], "validation": [good, row]})


def test_a_tag_that_the_model_does_not_know_is_refused():
    task = TokenClassification()
    task.scheme = "bio"
    base = hubtune.Base("", "", SimpleNamespace(label2id={"O": 0, "B-x": 1, "I-x": 2}), None)
    with pytest.raises(DataError, match="'B-y' is none of the model's: 'O', 'B-x', 'I-x'"):
        task.right(["B-y"], base)


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("limit", [None, 16])
def test_every_word_has_one_first_piece(model_type, limit, tiny_model):
    task = TokenClassification()
    base = configuration.open_base(local_origin(tiny_model(model_type)), task)
    base = hubtune.Base("", "", base.config, base.processor, limit)
    [examples] = windows(base, [" ".join(WORDS)], stride=5)
    assert (len(examples) > 1) == (limit is not None)
    assert all(limit is None or len(example["input_ids"]) <= limit for example in examples)
    seen = set()
    for example, first in zip(examples, first_pieces(examples, WORDS), strict=True):
        assert len(set(first.values())) == len(first)
        for position, word in first.items():
            piece = base.processor.decode(example["input_ids"][position]).strip().replace("##", "")
            known = piece.isascii() and "[" not in piece and piece != ""
            assert not known or WORDS[word].lower().startswith(piece.lower())
        seen |= set(first.values())
    spoken = {index for index, word in enumerate(WORDS) if word != "\u200b"}
    assert seen >= spoken


@pytest.mark.parametrize("model_type", TYPES)
def test_losses_and_answers_do_not_depend_on_the_batch(model_type, tiny_model):
    task = TokenClassification()
    rows = sample(task, 9)
    rows[3] = {"tokens": rows[3]["tokens"] * 3, "tags": rows[3]["tags"] * 3}
    model, base, encoded = prepared(task, tiny_model(model_type), rows)
    losses_add_up(task, model, base, encoded.examples)
    whole = answers(task, model, base, rows)
    for index in (0, 3, 8):
        [alone] = answers(task, model, base, [{"tokens": rows[index]["tokens"]}])
        assert alone["tags"] == whole[index]["tags"]
        assert alone["probabilities"] == pytest.approx(whole[index]["probabilities"], abs=1e-9)


def test_a_long_row_is_read_in_windows_and_each_word_where_most_is_around_it(tiny_model):
    task = TokenClassification(TokenOptions(stride=8))
    [short, *_] = rows = sample(task, 2)
    row = {"tokens": short["tokens"] * 20, "tags": short["tags"] * 20}
    model, base, encoded = prepared(task, tiny_model("bert"), [*rows, row], limit=32)
    assert len(encoded.examples_by_row()[2]) > 4
    assert encoded.sizes.max() == 32
    learnt = [tag for i in encoded.examples_by_row()[2] for tag in encoded.examples[i]["target"] if tag != -100]
    assert len(learnt) > len(row["tokens"])  # those in two windows are learnt twice
    [found] = answers(task, model, base, [row], limit=32)
    assert len(found["tags"]) == len(row["tokens"])
    one, other = ({"words": [4, 5], "context": context, "tags": tags, "probabilities": [0.5, 0.5]} for context, tags in
                  (([9, 2], ["B-person", "B-person"]), ([1, 6], ["O", "O"])))
    merged = task.merge([one, other], {"tokens": "a b c d e f"}, base)
    assert merged["tags"] == ["O", "O", "O", "O", "B-person", "O"]
    assert merged["spans"] == [{"type": "person", "start": 4, "end": 5, "text": "e", "score": 0.5}]


def test_the_right_answers_score_best(tiny_model):
    task = TokenClassification()
    rows = sample(task, 12)
    model, base, _ = prepared(task, tiny_model("bert"), rows)
    gold = [gold_answer(task, row, base) for row in rows]
    assert task.score(gold, rows, base) == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "accuracy": 1.0}
    assert task.report(gold, rows, base)["place"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 12}
    worse = [*gold[:-1], {**gold[-1], "tags": ["O"] * len(gold[-1]["tags"])}]
    assert task.score(worse, rows, base)["recall"] == 22 / 24
    assert task.score(answers(task, model, base, rows), rows, base)["f1"] < 0.5  # untrained
    assert task.select_metric(base).name == "f1"
    task.scheme = "words"
    assert task.select_metric(base).name == "accuracy"
    assert task.score(gold, rows, base)["accuracy"] == 1.0


def test_a_tokenizer_in_python_is_read_word_by_word(tiny_model):
    from transformers import CanineTokenizer

    task = TokenClassification()
    base = configuration.open_base(local_origin(tiny_model("bert")), task)
    for limit in (None, 16):
        base = hubtune.Base("", "", base.config, CanineTokenizer(), limit)
        [examples] = windows(base, ["a bee sees the sea"], stride=4)
        assert (len(examples) > 1) == (limit is not None)
        for example, first in zip(examples, first_pieces(examples, ["a", "bee", "sees", "the", "sea"]), strict=True):
            assert all(chr(example["input_ids"][at]) == "absts"[word] for at, word in first.items())
            assert set(example) == {"input_ids", "token_type_ids", "places"}
            assert len(example["places"]) == len(example["input_ids"]) <= (limit or 99)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2"])
def test_what_is_saved_tags_in_a_plain_pipeline(model_type, tiny_model, tmp_path):
    task = TokenClassification()
    rows = sample(task, 6)
    model, base, _ = prepared(task, tiny_model(model_type), rows)
    model.to(torch.float32).save_pretrained(tmp_path)
    base.processor.save_pretrained(tmp_path)
    plain = pipeline("token-classification", model=str(tmp_path), ignore_labels=[])
    for row, ours in zip(rows, answers(task, model, base, rows), strict=True):
        found, begin = plain(" ".join(row["tokens"])), 0
        for word, tag, probability in zip(row["tokens"], ours["tags"], ours["probabilities"], strict=True):
            piece = next(one for one in found if one["start"] <= begin < one["end"])
            assert (piece["entity"], piece["score"]) == (tag, pytest.approx(probability, abs=1e-5))
            begin += len(word) + 1


def test_the_snippet_finds_the_spans(tiny_model, tmp_path, capsys):
    task = TokenClassification()
    text = "Ada Lovelace was born in London ."
    model, base, _ = prepared(task, tiny_model("bert"), sample(task, 6))
    model.to(torch.float32).save_pretrained(tmp_path)
    base.processor.save_pretrained(tmp_path)
    snippet = task.usage(str(tmp_path), base)
    assert repr(text)[1:-1] in snippet
    exec(snippet)
    [ours] = answers(task, model, base, [{"tokens": text}])
    assert capsys.readouterr().out.count("entity_group") == len(ours["spans"])


def test_training_learns_the_tags(tiny_model, tmp_path):
    rows = sample(TokenClassification(), 48)
    run = hubtune.train("token-classification", model=tiny_model("bert"), data=rows, out=tmp_path / "run",
                        set={"train.epochs": 12.0, "train.learning_rate": 3e-3, "data.validation": 0.25})
    assert run.metrics["f1"] > 0.8
    assert run.predict(["Ada Lovelace never saw Rome ."])[0]["tags"] == ["B-person", "I-person", "O", "O", "B-place", "O"]
