"""Reranking: rows in every form, three losses, graded metrics, mined negatives, and the same scores in CrossEncoder."""

import json
import math

import numpy as np
import pytest
import torch
from hubtune_plugins.text.passages import losses, mining
from hubtune_plugins.text.passages.graded import grades_of, passages_of
from hubtune_plugins.text.passages.scores import list_scores
from hubtune_plugins.text.reranking import Reranking, RerankingOptions
from sklearn.metrics import average_precision_score, ndcg_score
from tiny import answers, losses_add_up, prepared

import hubtune
from hubtune.errors import DataError
from hubtune.testing import TaskConformance

ROWS = [
    {"query": "lovely day", "passages": ["a good walk by the river", "the kettle broke"], "grades": [2.0, 0.0]},
    {"query": "broke", "passages": ["grey soup", "the seat", "weeks later the kettle broke again", "legs"], "grades": [1, 0, 3, 0]},
    {"query": "chair", "passages": ["a chair with three legs"], "grades": [1]},
]
PAIRS = [{"query": row["query"], "passages": text, "grades": grade}
         for row in ROWS for text, grade in zip(row["passages"], row["grades"], strict=True)]


class TestListwise(TaskConformance):
    plugin = Reranking


class TestBinary(TaskConformance):
    plugin = Reranking
    options = {"loss": "binary"}


class TestMargin(TaskConformance):
    plugin = Reranking
    options = {"loss": "margin"}


@pytest.mark.parametrize("loss", list(losses.LOSSES))
@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlnet", "llama"])
def test_losses_and_scores_do_not_depend_on_the_queries_beside(loss, model_type, tiny_model):
    task = Reranking(RerankingOptions(loss=loss))
    model, base, encoded = prepared(task, tiny_model(model_type), ROWS)
    losses_add_up(task, model, base, encoded.examples)
    whole = answers(task, model, base, ROWS)
    for row, together in zip(ROWS, whole, strict=True):
        [alone] = answers(task, model, base, [{"query": row["query"], "passages": row["passages"]}])
        assert alone["scores"] == pytest.approx(together["scores"], abs=1e-9)
        ranking = alone["ranking"]
        assert [one["passage"] for one in ranking] == [row["passages"][one["index"]] for one in ranking]
        assert [one["score"] for one in ranking] == sorted(alone["scores"], reverse=True)
    json.dumps(whole, allow_nan=False)


def test_each_loss_is_that_of_its_formula():
    scores = torch.tensor([[0.5, -1.0, 2.0], [0.3, 0.1, -math.inf]], dtype=torch.float64)
    grades = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, losses.MISSING]])
    sigmoid = [1 / (1 + math.exp(-value)) for value in (0.5, -1.0, 2.0, 0.3, 0.1)]
    cells = zip(sigmoid, (1.0, 0.0, 0.5, 0.0, 0.5), strict=True)
    assert float(losses.binary(scores, grades, 2.0)) == pytest.approx(-sum(t * math.log(p) + (1 - t) * math.log(1 - p) for p, t in cells))
    first, second = scores[0].softmax(0), scores[1, :2].softmax(0)
    expected = -(2 / 3 * first[0].log() + 1 / 3 * first[2].log()) - second[1].log()
    assert float(losses.listwise(scores, grades, 2.0)) == pytest.approx(float(expected))
    hinges = [max(0, 1 - (0.5 + 1.0)), max(0, 1 - (0.5 - 2.0)), max(0, 1 - (2.0 + 1.0))]
    assert float(losses.margin(scores, grades, 2.0)) == pytest.approx(sum(hinges) / 3 + 1 - (0.1 - 0.3))


@pytest.mark.parametrize("loss", list(losses.LOSSES))
def test_queries_without_an_order_have_finite_gradients(loss):
    scores = torch.tensor([[0.5, -1.0], [0.3, -math.inf]], requires_grad=True)
    losses.LOSSES[loss](scores.clone(), torch.tensor([[0.0, 0.0], [1.0, losses.MISSING]]), 1.0).backward()
    assert torch.isfinite(scores.grad).all()


def test_metrics_are_those_of_scikit_learn_with_graded_gains():
    draw = np.random.default_rng(0)
    for _ in range(40):
        count = int(draw.integers(2, 25))
        scores, grades = draw.normal(size=count), draw.integers(0, 4, count).astype(float)
        grades[0] = 3
        found = list_scores(scores.tolist(), grades.tolist())
        assert found["ndcg@10"] == pytest.approx(ndcg_score(grades[None], scores[None], k=10))
        assert found["map"] == pytest.approx(average_precision_score(grades > 0, scores))
        ranked = grades[np.argsort(-scores)] > 0
        assert found["mrr@10"] == (1 / (1 + int(ranked.argmax())) if ranked[:10].any() else 0)


def test_a_model_that_says_the_same_of_all_passages_gets_the_worst_order():
    found = list_scores([1.0] * 4, [0.0, 1.0, 0.0, 0.0])
    assert found == {"ndcg@10": 1 / math.log2(5), "mrr@10": 0.25, "map": 0.25}


@pytest.mark.parametrize(("row", "passages", "grades"), [
    ({"passages": ["x", "y"], "grades": [0, 2]}, ["x", "y"], [0.0, 2.0]),
    ({"passages": '["x", "y"]', "grades": "[1, 0.5]"}, ["x", "y"], [1.0, 0.5]),
    ({"passages": "x", "grades": "3"}, ["x"], [3.0]),
    ({"passages": "[x] is a note", "grades": True}, ["[x] is a note"], [1.0]),
    ({"positive": "x", "negatives": "y"}, ["x", "y"], [1.0, 0.0]),
    ({"positive": ["x", "y"], "negatives": ["z"]}, ["x", "y", "z"], [1.0, 1.0, 0.0]),
    ({"positive": "x", "negatives": None}, ["x"], [1.0]),
    ({"passages": ["x", "y"]}, ["x", "y"], None),
])
def test_rows_are_read_in_every_form(row, passages, grades):
    assert (passages_of(row), grades_of(row)) == (passages, grades)


@pytest.mark.parametrize(("rows", "message"), [
    ([{"query": "a"}], "queries and no passages"),
    ([{"query": "a", "passages": ["b"]}], "nothing that says which of them"),
    ([{"query": "a", "passages": ["b", "c"], "grades": [1]}] * 2, "2 rows have grades .*: rows 1, 2 of train"),
    ([{"query": "a", "passages": "b", "grades": "good"}], "row 1 of train"),
    ([{"query": "a", "passages": "b", "grades": -1}], "row 1 of train"),
    ([{"query": "a", "passages": ["b", "c"], "grades": [1, 1]}], "every passage of train has the grade 1"),
    ([{"query": "a", "positive": "b"}], "nothing to tell apart"),
])
def test_rows_that_cannot_be_learnt_are_refused(rows, message):
    with pytest.raises(DataError, match=message):
        Reranking().validate_data({"train": rows})


@pytest.mark.parametrize("loss", ["listwise", "margin"])
def test_a_loss_over_lists_is_refused_for_single_passages(loss):
    with pytest.raises(DataError, match="compares the passages of a row"):
        Reranking(RerankingOptions(loss=loss)).validate_data({"train": PAIRS})


def test_the_loss_and_the_metric_follow_from_the_rows():
    def info(rows):
        return Reranking().validate_data({"train": rows})

    assert info(ROWS) == {"loss": "listwise", "highest": 3.0, "metric": "ndcg@10"}
    assert info(PAIRS) == {"loss": "binary", "highest": 3.0, "metric": "ndcg@10"}
    alone = [{**row, "query": f"{row['query']} {index}"} for index, row in enumerate(PAIRS)]
    assert info(alone) == {"loss": "binary", "highest": 3.0, "metric": "spearman"}


def test_pairs_of_one_query_are_scored_as_one_ranking(tiny_model):
    listed, paired = Reranking(), Reranking()
    _, base, _ = prepared(listed, tiny_model("bert"), ROWS)
    prepared(paired, tiny_model("bert"), PAIRS)
    scores = [[0.1, 0.7], [0.2, 0.1, 0.9, 0.3], [0.4]]
    whole = listed.score([{"scores": found} for found in scores], ROWS, base)
    apart = paired.score([{"scores": [score]} for found in scores for score in found], PAIRS, base)
    assert {**whole, "spearman": apart["spearman"]} == pytest.approx(apart)
    assert whole["mrr@10"] == pytest.approx((1 / 2 + 1) / 2)  # the third query has one passage: no order


def test_resampled_rows_are_resampled_queries(tiny_model):
    task = Reranking()
    _, base, _ = prepared(task, tiny_model("bert"), PAIRS)
    found = [{"scores": [score]} for score in (0.1, 0.7, 0.2, 0.1, 0.9, 0.3, 0.4)]
    whole = task.score(found, PAIRS, base)
    alone = [task.score([found[index]], [PAIRS[index]], base)["mrr@10"] for index in (0, 2)]
    assert whole["mrr@10"] == pytest.approx(np.mean(alone))
    again = task.score([found[0], found[2], found[2]], [PAIRS[0], PAIRS[2], PAIRS[2]], base)
    assert again["mrr@10"] == pytest.approx((alone[0] / 2 + 2 * alone[1] / 4) / (1 / 2 + 2 / 4))


def test_rows_without_a_passage_are_refused_when_they_are_predicted(tiny_model):
    task = Reranking()
    _, base, _ = prepared(task, tiny_model("bert"), ROWS)
    with pytest.raises(DataError, match="'chair' has no passages"):
        list(task.encode([{"query": "chair"}], base))


# ---------------------------------------------------------------------------------------------------------- hard negatives

VECTORS = {"q1": (1, 0), "q2": (0, 1), "near": (0.9, 0.4), "right": (0.8, 0.6), "far": (-1, 0), "other": (0.1, 0.9)}
ASKED = [{"query": "q1", "positive": "right"}, {"query": "q2", "positive": ["other", "far"]}, {"query": "q1", "positive": "near"}]


def embedded(texts, model):
    found = np.array([VECTORS[text] for text in texts], dtype="float32")
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_hard_negatives_are_the_nearest_passages_that_no_row_of_the_query_has(monkeypatch):
    monkeypatch.setattr(mining, "embeddings", embedded)
    assert mining.hard_negatives(ASKED, "model", 1) == [["other"], ["right"], ["other"]]
    assert mining.hard_negatives(ASKED, "model", 5) == [["other", "far"], ["right", "near"], ["other", "far"]]
    kept = [{**ASKED[0], "negatives": ["mine"]}, *ASKED[1:]]
    assert mining.hard_negatives(kept, "model", 1)[0] == ["mine"]


def test_an_embedding_model_is_asked_through_the_public_interface(minilm):
    found = mining.embeddings(["the card has not arrived", "my card did not come", "exchange rate"], str(minilm))
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert found[0] @ found[1] > 0.6 > 0.4 > found[0] @ found[2]


def test_negatives_are_found_before_training_and_for_rows_that_are_evaluated(tiny_model, tmp_path):
    folder = tiny_model("bert")
    rows = [{"query": f"which {word}", "positive": f"the {word} by the river"} for word in ("kettle", "chair", "seat", "soup", "walk", "day")]
    settings = {"task.hard_negatives": str(folder), "task.negatives": 3, "train.max_steps": 2, "train.batch_size": 3, "train.verify": False}
    run = hubtune.train("reranking", model=folder, data={"train": rows, "validation": rows[:4]}, set=settings, out=tmp_path / "run")
    assert run.record["data"]["rows"] == {"train": 6, "validation": 4}
    lengths = run.record["lengths"]
    assert lengths["tokens"] > 3 * lengths["rows"] * lengths["median"]  # each query with its positive passage and three more
    assert run.evaluate(rows[:4])["metrics"] == pytest.approx(run.metrics, abs=1e-6)
    assert len(run.predict([{"query": rows[0]["query"], "passages": ["a chair", "a kettle"]}])[0]["ranking"]) == 2


def test_rows_with_found_negatives_cannot_be_streamed():
    from datasets import Dataset

    from hubtune.data.columns import add_task_columns
    from hubtune.data.streaming import Stream

    task = Reranking(RerankingOptions(hard_negatives="model"))
    with pytest.raises(hubtune.HubtuneError, match="cannot be streamed"):
        add_task_columns(object.__new__(Stream), task)
    rows = Dataset.from_list([{"query": "a", "positive": "b"}])
    assert add_task_columns(rows, Reranking()) is rows


# ------------------------------------------------------------------------------------------- what other libraries load


@pytest.mark.parametrize("loss", ["binary", "listwise"])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2"])
def test_scores_are_those_of_cross_encoder_and_of_plain_transformers(loss, model_type, tiny_model, tmp_path):
    library = pytest.importorskip("sentence_transformers", reason="pip install sentence-transformers")
    task = Reranking(RerankingOptions(loss=loss))
    model, base, _ = prepared(task, tiny_model(model_type), ROWS, dtype=torch.float32)
    model.save_pretrained(tmp_path)
    base.processor.save_pretrained(tmp_path)
    ours = [score for answer in answers(task, model, base, ROWS, limit=None) for score in answer["scores"]]
    pairs = [(row["query"], passage) for row in ROWS for passage in row["passages"]]
    loaded = library.CrossEncoder(str(tmp_path), device="cpu", local_files_only=True)
    assert loaded.predict(pairs) == pytest.approx(ours, abs=1e-5)
    seen = {}
    exec(task.usage(str(tmp_path), base), seen)
    query, passages = seen["query"], seen["passages"]
    assert seen["scores"].tolist() == pytest.approx(loaded.predict([(query, passage) for passage in passages]), abs=1e-5)
    from transformers import pipeline

    pipe = pipeline("text-classification", model=str(tmp_path), device="cpu")
    assert [pipe({"text": query, "text_pair": text})["score"] for query, text in pairs] == pytest.approx(ours, abs=1e-5)


def test_a_cross_encoder_of_others_keeps_its_function(tiny_model, tmp_path):
    library = pytest.importorskip("sentence_transformers", reason="pip install sentence-transformers")
    kept = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.1.0"}}
    made = library.CrossEncoder(str(tiny_model("bert")), num_labels=1, device="cpu", config_kwargs=kept)
    made.transformers_model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    found = hubtune.load(tmp_path, task="reranking").predict([{key: row[key] for key in ("query", "passages")} for row in ROWS])
    for row, answer in zip(ROWS, found, strict=True):
        expected = made.predict([(row["query"], one["passage"]) for one in answer["ranking"]])
        assert [one["score"] for one in answer["ranking"]] == pytest.approx(expected, abs=1e-5)


@pytest.fixture
def cross_encoder(tiny_model, tmp_path):
    """A repository as CrossEncoder of sentence-transformers 6.2 writes it, with raw logits as scores; its loaded model."""
    library = pytest.importorskip("sentence_transformers", reason="pip install sentence-transformers")
    torch.manual_seed(0)
    made = library.CrossEncoder(str(tiny_model("bert")), num_labels=1, device="cpu", max_length=64, activation_fn=torch.nn.Identity())
    made.save_pretrained(str(tmp_path / "cross"))
    return tmp_path / "cross", made


def gap(made, found):
    """The largest difference between the scores of rankings and those of a CrossEncoder."""
    return max(abs(float(theirs) - one["score"]) for row, answer in zip(ROWS, found, strict=True) for one, theirs in zip(
        answer["ranking"], made.predict([(row["query"], one["passage"]) for one in answer["ranking"]]), strict=True))


@pytest.mark.parametrize("loss", ["binary", "listwise"])
def test_a_cross_encoder_is_read_and_tuned_and_loaded_again_as_one(loss, cross_encoder, tmp_path):
    """Its function is in a file of its own; what CrossEncoder computes of the published model is what was proven."""
    folder, made = cross_encoder
    asked = [{key: row[key] for key in ("query", "passages")} for row in ROWS]
    assert gap(made, hubtune.load(folder, task="reranking").predict(asked)) < 1e-6
    run = hubtune.train("reranking", model=folder, data=[dict(row, query=f"{row['query']} {n}") for n in range(4) for row in ROWS],
                        out=tmp_path / "run", set={"train.max_steps": 2, "task.loss": loss, "train.precision": "fp32"})
    again = type(made)(str(run.folder / "model"), device="cpu", local_files_only=True)
    assert again.max_seq_length == made.max_seq_length == 64
    assert gap(again, run.predict(asked)) < 1e-6


def test_a_cross_encoder_that_is_more_than_a_classifier_is_refused(cross_encoder):
    folder, _ = cross_encoder
    path = folder / "config_sentence_transformers.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "activation_fn": "torch.nn.modules.activation.Tanh"}))
    with pytest.raises(hubtune.ModelError, match=r"makes scores by 'torch\.nn\.modules\.activation\.Tanh'"):
        hubtune.load(folder, task="reranking").predict([{"query": "a", "passages": ["b"]}])
    path.write_text(json.dumps({**said, "default_prompt_name": "query", "prompts": {"query": "q: "}}))
    with pytest.raises(hubtune.ModelError, match="has a prompt beside a classifier"):
        hubtune.check("reranking", model=folder, data=[*ROWS, *ROWS])
