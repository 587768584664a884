"""Sentence similarity: three kinds of data, a loss over the whole step, retrieval by brute force, and what others load."""

import json
import random

import numpy as np
import pytest
import torch
from hubtune_plugins.text.sentence_similarity import SentenceSimilarity, SimilarityOptions
from hubtune_plugins.text.similarity.ranking import ranking_scores
from sklearn.metrics import ndcg_score
from tiny import gold_answer

import hubtune
from hubtune.data import encoding
from hubtune.errors import DataError
from hubtune.hub.origin import local_origin
from hubtune.models import configuration, loading

WORDS = ["lovely", "day", "good", "walk", "river", "kettle", "broke", "weeks", "chair", "legs", "seat", "grey", "soup"]
DRAW = random.Random(5)
SENTENCES = [" ".join(DRAW.choices(WORDS, k=DRAW.randint(2, 14))) for _ in range(24)]
GRADED = [{"text": a, "text_pair": b, "label": float(i % 4)} for i, (a, b) in enumerate(zip(SENTENCES[:12], SENTENCES[12:], strict=True))]
PAIRS = [{"text": row["text"], "text_pair": row["text_pair"]} for row in GRADED]
LABELS = [{"text": text, "label": f"class {i % 3}"} for i, text in enumerate(SENTENCES[:12])]
DATA = {"graded": GRADED, "pairs": PAIRS, "labels": LABELS}
DRAWS = [hubtune.ExampleRNG(seed=1, epoch=0, row=row) for row in range(24)]


def opened(folder, task, dataset_info=None):
    """A model in fp64 with its base, evaluating."""
    origin = local_origin(folder)
    base = configuration.open_base(origin, task)
    base = configuration.apply_setup(base, task.model_config(dataset_info or {}, base))
    return loading.load(origin, base, task, hubtune.Strategy(), seed=0).model.double().eval(), base


def encoded(task, rows, base):
    return [found[0] for found in task.encode(rows, base)]


def represented(task, model, batch):
    return task.embed(task.forward(model, batch), batch)


@pytest.mark.parametrize("kind", ["graded", "pairs", "labels"])
@pytest.mark.parametrize("model_type", ["bert", "gpt2", "t5"])
def test_law_1_a_step_s_gradient_is_the_same_however_it_is_cut(kind, model_type, tiny_model):
    """With a cache of the representations, by hand: no gradient, loss over all, then each part's backward."""
    task = SentenceSimilarity()
    model, base = opened(tiny_model(model_type), task, task.validate_data({"train": DATA[kind]}))
    examples = encoded(task, DATA[kind], base)
    whole = task.collate(examples, base, DRAWS[:12])
    loss = task.loss(task.forward(model, whole), whole)
    assert whole.counts["loss"] == 12
    (loss.total / 12).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert any(float(grad.abs().max()) > 1e-6 for grad in expected.values())
    for cuts in ([range(5), range(5, 12)], [[i] for i in range(12)]):
        model.zero_grad()
        batches = [task.collate([examples[i] for i in cut], base, [DRAWS[i] for i in cut]) for cut in cuts]
        with torch.no_grad():
            cached = [represented(task, model, batch) for batch in batches]
        cache = torch.cat(cached).requires_grad_()
        again = task.contrastive_loss(cache, batches)
        assert float(again.total.detach()) == pytest.approx(float(loss.total.detach()), rel=1e-12)
        (again.total / 12).backward()
        for batch, grads in zip(batches, cache.grad.split([len(part) for part in cached]), strict=True):
            represented(task, model, batch).backward(grads)
        for name, parameter in model.named_parameters():
            if name in expected:
                assert torch.linalg.norm(parameter.grad - expected[name]) <= 1e-9 + 1e-9 * torch.linalg.norm(expected[name])


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2", "llama", "t5", "bart", "xlnet", "modernbert"])
def test_vectors_do_not_depend_on_the_batch_and_are_those_of_the_snippet(pooling, model_type, tiny_model, tmp_path):
    task = SentenceSimilarity(SimilarityOptions(pooling=pooling))
    model, base = opened(tiny_model(model_type), task)
    examples = encoded(task, [{"text": text} for text in [*SENTENCES, "What a lovely day", "The weather is fine"]], base)
    batch = task.collate(examples, base, None)
    assert batch.targets is None
    with torch.no_grad():
        together = task.postprocess(task.forward(model, batch), batch, base)
        for index in (0, 7, 21):
            batch = task.collate([examples[index]], base, None)
            alone = task.postprocess(task.forward(model, batch), batch, base)[0]["embedding"]
            assert np.allclose(alone, together[index]["embedding"], atol=1e-6)
            assert np.linalg.norm(alone) == pytest.approx(1, abs=1e-6)
    model.float().save_pretrained(tmp_path)
    base.processor.save_pretrained(tmp_path)
    seen = {}
    exec(task.usage(str(tmp_path), base), seen)
    assert np.allclose(seen["vectors"], [one["embedding"] for one in together[-2:]], atol=1e-5)


@pytest.mark.parametrize(("model_type", "pooling"), [("bert", "mean"), ("t5", "mean"), ("gpt2", "last"), ("llama", "last"), ("xlnet", "last")])
def test_causal_models_are_read_at_the_last_token(model_type, pooling, tiny_model):
    task = SentenceSimilarity()
    opened(tiny_model(model_type), task)
    assert task.layout.pooling == (pooling,)


def test_in_batch_negatives_never_are_what_is_known_to_match():
    task = SentenceSimilarity(SimilarityOptions(temperature=0.1))
    vectors = torch.nn.functional.normalize(torch.randn(4, 2, 8, dtype=torch.float64, generator=torch.manual_seed(0)), dim=-1)
    keys = torch.tensor([[1, 11], [1, 12], [3, 12], [4, 14]])  # 0 and 1 share a query, 1 and 2 a document
    cosines = (vectors[:, 0] @ vectors[:, 1].T / 0.1).exp()
    allowed = [[0, 2, 3], [1, 3], [0, 2, 3], [0, 1, 2, 3]]
    expected = -sum(float(torch.log(cosines[i, i] / cosines[i, columns].sum())) for i, columns in enumerate(allowed))
    loss = task.contrastive_loss(vectors, [hubtune.Batch({}, keys[:3], 3), hubtune.Batch({}, keys[3:], 1)])
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-12)


def test_graded_pairs_are_compared_by_order():
    task = SentenceSimilarity(SimilarityOptions(temperature=0.05))
    first = torch.eye(3, dtype=torch.float64)
    angles = torch.tensor([0.9, 0.1, 0.5], dtype=torch.float64)
    second = torch.stack([angles[i] * first[i] + (1 - angles[i] ** 2).sqrt() * first[(i + 1) % 3] for i in range(3)])
    scores = torch.tensor([1.0, 5.0, 5.0])
    loss = task.contrastive_loss(torch.stack([first, second], 1), [hubtune.Batch({}, scores, 3)])
    expected = 3 * np.log1p(np.exp(20 * (0.9 - 0.1)) + np.exp(20 * (0.9 - 0.5)))
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-9)
    equal = task.contrastive_loss(torch.stack([first, second], 1), [hubtune.Batch({}, torch.ones(3), 3)])
    assert float(equal.total.detach()) == 0.0


def test_a_label_s_partner_is_another_text_of_it_and_changes_with_the_epoch(tiny_model):
    task = SentenceSimilarity()
    _, base = opened(tiny_model("bert"), task, {"kind": "labels"})
    made = encoding.encode(task, LABELS, base, None)

    def partners(epoch, rows=range(12)):
        rngs = [made.example_rng(0, epoch, row) for row in rows]
        ids = task.collate([made.examples[row] for row in rows], base, rngs).inputs["input_ids"]
        return base.processor.batch_decode(ids.unflatten(0, (len(rows), 2))[:, 1], skip_special_tokens=True)

    first = partners(0)
    for row, found in zip(LABELS, first, strict=True):
        assert {"text": found, "label": row["label"]} in LABELS
        assert found != row["text"]
    assert partners(0, [5, 6]) == first[5:7]
    assert partners(1) != first


def test_long_partners_are_the_cut_ones(tiny_model):
    task = SentenceSimilarity()
    _, base = opened(tiny_model("bert"), task, {"kind": "labels"})
    rows = [{"text": f"day {'walk ' * length}", "label": "one"} for length in (1, 60)] + [{"text": "seat", "label": "two"}] * 2
    found = encoding.encode(task, rows, base, 20)
    assert max(map(task.length, found.examples)) == 20
    batch = task.collate([found.examples[0]], base, [found.example_rng(1, 0, 0)])
    assert batch.inputs["input_ids"].shape == (2, 20)


@pytest.mark.parametrize("copies", [0, 6])
def test_retrieval_agrees_with_brute_force_and_scikit_learn(copies):
    draw = np.random.default_rng(0)
    queries, documents = draw.normal(size=(300, 6)).astype("float32"), draw.normal(size=(90, 6)).astype("float32")
    relevant = [np.flatnonzero(draw.random(90) < 0.05) for _ in queries]
    if copies:
        relevant[:copies] = [np.array([], dtype=int)] * copies
    scores = ranking_scores(queries, documents, relevant)
    assert [scores[index] for index in range(copies)] == [{}] * copies
    for query, wanted, found in zip(queries, relevant, scores, strict=True):
        if not len(wanted):
            continue
        order = sorted(range(90), key=lambda document: -float(query @ documents[document]))
        first = min(order.index(document) for document in wanted) + 1
        assert found["mrr"] == 1 / first
        assert [found[f"recall@{k}"] for k in (1, 5, 10)] == [first <= k for k in (1, 5, 10)]
        truth = np.isin(range(90), wanted)[None]
        assert found["ndcg@10"] == pytest.approx(ndcg_score(truth, (documents @ query)[None], k=10))


def test_a_model_that_says_the_same_of_all_finds_nothing():
    same = np.ones((8, 3), dtype="float32")
    found = ranking_scores(same, same, [np.array([index]) for index in range(8)])
    assert {scores["mrr"] for scores in found} == {1 / 8}


def test_labels_leave_the_text_itself_out_and_pairs_know_equal_documents(tiny_model):
    task = SentenceSimilarity()
    _, base = opened(tiny_model("bert"), task)
    near = {"a": [1.0, 0.0], "b": [0.8, 0.6], "c": [0.0, 1.0], "d": [0.6, 0.8]}
    rows = [{"text": name, "label": label} for name, label in zip("abcd", [1, 1, 2, 1], strict=True)]
    # neighbours: a-b, b-d, c-d, d-b; c is alone in its label and is not asked
    assert task.score([{"embedding": near[row["text"]]} for row in rows], rows, base)["recall@1"] == 1.0
    pairs = [{"text": "a", "text_pair": "b"}, {"text": "c", "text_pair": "d"}, {"text": "a", "text_pair": "d"}]
    found = [{"embedding": near[row["text"]], "embedding_pair": near[row["text_pair"]]} for row in pairs]
    scores = task.score(found, pairs, base)
    assert scores == {"recall@1": 1.0, "recall@10": 1.0, "ndcg@10": 1.0, "mrr": 1.0}


def test_resampled_rows_are_resampled_queries_over_the_same_documents(tiny_model):
    task = SentenceSimilarity()
    _, base = opened(tiny_model("bert"), task)
    vectors = np.random.default_rng(1).normal(size=(12, 2, 4))
    predictions = [{"embedding": one.tolist(), "embedding_pair": other.tolist()} for one, other in vectors]
    whole = task.score(predictions, PAIRS, base)
    alone = [task.score([predictions[i]], [PAIRS[i]], base)["mrr"] for i in range(12)]
    assert np.mean(alone) == pytest.approx(whole["mrr"])
    chosen = [3, 3, 3, 7]
    again = task.score([predictions[i] for i in chosen], [PAIRS[i] for i in chosen], base)
    assert again["mrr"] == pytest.approx(np.mean([alone[i] for i in chosen]))


@pytest.mark.parametrize("kind", ["graded", "pairs", "labels"])
def test_perfect_answers_score_best_and_the_metric_is_one_of_the_scores(kind, tiny_model):
    task = SentenceSimilarity()
    _, base = opened(tiny_model("bert"), task, task.validate_data({"train": DATA[kind]}))
    scores = task.score([gold_answer(task, row, base) for row in DATA[kind]], DATA[kind], base)
    assert all(value == pytest.approx(1) for value in scores.values())
    assert task.select_metric(base).name in scores


def test_what_is_shown(tiny_model):
    task = SentenceSimilarity()
    model, base = opened(tiny_model("bert"), task)
    with torch.no_grad():
        for rows, shown in ((PAIRS, {"similarity"}), ([{"text": "a day"}], {"embedding"})):
            batch = task.collate(encoded(task, rows, base), base, None)
            found = [task.show(one) for one in task.postprocess(task.forward(model, batch), batch, base)]
            assert all(set(one) == shown for one in found)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a"}, {"text": "b"}], "nothing that says which are alike"),
        ([{"text": "a", "text_pair": "b", "label": "good"}] * 3, "'good' is not a number: rows 1, 2, 3 of train"),
        ([{"text": "a", "text_pair": "b", "label": 1.0}] * 3, "the same label"),
        ([{"text": "a", "text_pair": "b"}] * 3, "the same text_pair"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], "share a label"),
    ],
)
def test_what_cannot_be_learnt_is_refused(rows, message):
    with pytest.raises(DataError, match=message):
        SentenceSimilarity().validate_data({"train": rows})


@pytest.mark.parametrize(("model_type", "mode"), [("bert", "mean_tokens"), ("gpt2", "lasttoken"), ("t5", "mean_tokens")])
def test_sentence_transformers_reads_the_files(model_type, mode, tiny_model, tmp_path):
    task = SentenceSimilarity()
    model, base = opened(tiny_model(model_type), task)
    files = task.files(base)
    assert set(files) == {"modules.json", "1_Pooling/config.json", "2_Normalize/config.json"}
    assert [part["path"] for part in json.loads(files["modules.json"])] == ["", "1_Pooling", "2_Normalize"]
    pooling = json.loads(files["1_Pooling/config.json"])
    assert pooling["word_embedding_dimension"] == 32
    assert [name for name, value in pooling.items() if value is True] == [f"pooling_mode_{mode}"]
    library = pytest.importorskip("sentence_transformers", reason="pip install sentence-transformers")
    model.float().save_pretrained(tmp_path)
    base.processor.save_pretrained(tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    loaded = library.SentenceTransformer(str(tmp_path), device="cpu", local_files_only=True)
    with torch.no_grad():
        batch = task.collate(encoded(task, [{"text": text} for text in SENTENCES], base), base, None)
        ours = [one["embedding"] for one in task.postprocess(task.forward(model, batch), batch, base)]
    assert np.allclose(loaded.encode(SENTENCES), ours, atol=1e-5)


def test_the_decoder_of_an_encoder_decoder_is_not_what_sentence_transformers_should_read(tiny_model):
    task = SentenceSimilarity()
    _, base = opened(tiny_model("bart"), task)
    assert task.files(base) == {}
    assert "get_encoder()" in task.usage("me/model", base)
