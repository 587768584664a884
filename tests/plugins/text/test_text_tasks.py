"""The text tasks and the laws that they and the strategies keep, on tiny models of unlike architectures."""

import csv

import numpy as np
import pytest
import torch
from hubtune_plugins.classification.scores import number_scores
from hubtune_plugins.text.sentiment import Sentiment
from hubtune_plugins.text.text_classification import ClassificationOptions, TextClassification
from transformers import pipeline

import hubtune
from hubtune.callbacks import RecordingCallbacks
from hubtune.contract import registry
from hubtune.data import encoding
from hubtune.data.batching import micro_batches
from hubtune.errors import DataError
from hubtune.evaluation import model_checks
from hubtune.evaluation.inference import Predictor
from hubtune.hub.origin import local_origin
from hubtune.models import configuration, loading
from hubtune.recipe import PluginChoice

FAST = {"train.epochs": 1.0, "train.verify": False}


@pytest.fixture(scope="module")
def rows(reviews):
    with reviews.open(newline="") as file:
        return list(csv.DictReader(file))[:48]


def prepared(task, folder, rows, dtype=torch.float64):
    """A model for the task, in fp64 and without dropout, and its encoded rows."""
    dataset_info = task.validate_data({"train": rows})
    origin = local_origin(folder)
    base = configuration.open_base(origin, task)
    base = configuration.apply_setup(base, task.model_config(dataset_info, base))
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "dropout_rate", "attention_dropout",
                 "embd_pdrop", "resid_pdrop", "attn_pdrop", "seq_classif_dropout", "classifier_dropout"):
        if hasattr(base.config, name):
            setattr(base.config, name, 0.0)
    loaded = loading.load(origin, base, task, hubtune.Strategy(), seed=0)
    return loaded.model.to(dtype), base, encoding.encode(task, rows, base, 60)


def gradient(task, model, base, encoded, cuts):
    """The gradient of the mean loss of a step, cut as given."""
    model.zero_grad()
    batches = [task.collate([encoded.examples[i] for i in part], base, None) for part in cuts]
    count = sum(batch.counts["loss"] for batch in batches)
    for batch in batches:
        (task.loss(task.forward(model, batch), batch).total / count).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "t5", "deberta-v2"])
@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression", "balanced"])
def test_law_1_a_step_s_gradient_is_the_same_however_it_is_cut(model_type, kind, tiny_model, rows):
    made = [{"text": row["text"], "label": row["label"]} for row in rows[:12]]
    if kind == "multi_label":
        made = [{**row, "label": f"{row['label']}|{'long' if len(row['text']) > 90 else 'short'}"} for row in made]
    if kind == "regression":
        made = [{**row, "label": float(len(row["text"])) / 100} for row in made]
    options = {"class_weights": "balanced"} if kind == "balanced" else {"kind": kind}
    task = TextClassification(ClassificationOptions(**options))
    model, base, encoded = prepared(task, tiny_model(model_type), made)
    model.train()
    everything = list(range(12))
    whole = gradient(task, model, base, encoded, [everything])
    for cuts in ([everything[:5], everything[5:]], [[i] for i in everything],
                 micro_batches(everything, encoded.sizes.tolist(), overhead=8, limit=200)):
        parts = gradient(task, model, base, encoded, cuts)
        assert torch.linalg.norm(parts - whole) <= 1e-9 * torch.linalg.norm(whole)


def test_law_1_a_loss_is_additive(tiny_model, rows):
    task = TextClassification()
    model, base, encoded = prepared(task, tiny_model("bert"), rows[:10])
    model.eval()

    def loss(items):
        batch = task.collate([encoded.examples[i] for i in items], base, None)
        return task.loss(task.forward(model, batch), batch)

    whole, parts = loss(range(10)), loss(range(4)) + loss(range(4, 10))
    assert torch.allclose(whole.total, parts.total, rtol=1e-12)
    with pytest.raises(ValueError, match="cannot add"):
        whole + hubtune.Loss(whole.total, name="other")


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "llama", "t5", "bart", "xlnet", "modernbert", "roberta", "distilbert"])
def test_answers_do_not_depend_on_the_batch(model_type, tiny_model, rows):
    task = TextClassification()
    model, base, encoded = prepared(task, tiny_model(model_type), rows)
    whole = Predictor(model, task, base).predict(rows, encoded)
    for index in (0, 7, 21):
        one = encoding.encode(task, rows[index : index + 1], base, 60)
        alone = Predictor(model, task, base).predict(rows[index : index + 1], one)[0]
        together = whole[index]
        assert alone["label"] == together["label"]
        assert all(abs(alone["probabilities"][k] - v) < 1e-9 for k, v in together["probabilities"].items())
    assert not model_checks.depends_on_padding(model, task, base, encoded)


@pytest.mark.parametrize("strategy", ["full", "head", "lora"])
@pytest.mark.parametrize("model_type", ["bert", "distilbert", "deberta-v2", "xlnet", "bart", "t5", "modernbert", "gpt2", "llama"])
def test_what_is_saved_answers_in_a_plain_pipeline(strategy, model_type, tiny_model, rows, tmp_path):
    run = hubtune.train("sentiment", model=tiny_model(model_type), data=rows, strategy=strategy, set=FAST,
                        out=tmp_path / "run")
    texts = [row["text"] for row in rows[:8]]
    plain = pipeline("text-classification", model=str(tmp_path / "run" / "model"), top_k=None)(texts, truncation=True)
    for found, ours in zip(plain, run.predict(texts), strict=True):
        assert {one["label"]: one["score"] for one in found} == pytest.approx(ours["probabilities"], abs=1e-5)


@pytest.mark.parametrize("strategy", ["full", "head", "lora"])
def test_law_3_frozen_weights_stay_and_fresh_ones_train(strategy, tiny_model, rows, tmp_path, monkeypatch):
    """Looked at on the trained module itself, before it is exported."""
    seen = {}
    original = loading.load

    def load(*arguments, **more):
        loaded = original(*arguments, **more)
        seen["before"] = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
        seen["fresh"] = loaded.newly_initialized
        seen["model"] = loaded.model
        return loaded

    monkeypatch.setattr(loading, "load", load)
    run = hubtune.train("sentiment", model=tiny_model("bert"), data=rows, strategy=strategy, out=tmp_path / "run",
                        set={**FAST, "train.keep": "last", "train.weight_decay": 0.0})
    monkeypatch.undo()
    after = loading.load(local_origin(run.folder / "model"), run.load_weights()[1], run.task, hubtune.Strategy(), 0).model
    moved = {name for name, p in after.named_parameters() if not torch.equal(p, seen["before"][name])}
    newly_initialized = seen["fresh"]
    assert newly_initialized
    assert newly_initialized <= moved
    if strategy == "head":
        assert moved == newly_initialized
    if strategy == "lora":
        assert all(name in newly_initialized or name.endswith("weight") for name in moved)
        assert not [name for name in moved if "LayerNorm" in name or "embeddings" in name]


@pytest.mark.parametrize(
    ("raw", "labels"),
    [
        (["0", "1"], ["negative", "positive"]),
        (["-1", "0", "1"], ["negative", "neutral", "positive"]),
        (["0", "1", "2"], ["negative", "neutral", "positive"]),
        (["1", "2", "3", "4", "5"], ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]),
        (["pos", "neg"], ["negative", "positive"]),
        (["Positive", "Neutral", "Negative"], ["negative", "neutral", "positive"]),
        ([0, 1], ["negative", "positive"]),
    ],
)
def test_sentiment_understands_what_labels_mean(raw, labels):
    rows = [{"text": f"text {n}", "label": label} for n, label in enumerate(raw * 3)]
    assert Sentiment().validate_data({"train": rows})["labels"] == labels


def test_sentiment_refuses_what_it_does_not_understand():
    rows = [{"text": f"text {n}", "label": label} for n, label in enumerate(["sports", "politics"] * 3)]
    with pytest.raises(DataError, match="no sentiment") as refused:
        Sentiment().validate_data({"train": rows})
    assert "text-classification" in refused.value.hint


def test_pairs_numbers_and_several_labels_train_and_predict(tiny_model, rows, tmp_path):
    pairs = [{"sentence1": row["text"][:40], "sentence2": row["text"][-40:], "score": len(row["text"]) / 50} for row in rows]
    run = hubtune.train("text-classification", model=tiny_model("bert"), data=pairs, set=FAST, out=tmp_path / "pairs")
    assert run.record["data"]["columns"] == {"text": "sentence1", "text_pair": "sentence2", "label": "score"}
    assert set(run.metrics) == {"pearson", "spearman", "mae", "rmse"}
    assert isinstance(run.predict([{"text": "one", "text_pair": "other"}])[0]["value"], float)
    several = [{"text": row["text"], "labels": [row["label"], "long" if len(row["text"]) > 90 else "short"]} for row in rows]
    run = hubtune.train("text-classification", model=tiny_model("bert"), data=several, set={**FAST, "task.threshold": 0.0},
                        out=tmp_path / "several")
    assert set(run.predict(["a text"])[0]["labels"]) == {"long", "negative", "neutral", "positive", "short"}
    assert "f1_micro" in run.metrics
    found = run.evaluate(several)
    assert set(found["report"]) >= {"long", "short", "micro avg"}


def test_a_label_that_the_model_does_not_know_is_refused_by_evaluate(tiny_model, rows, tmp_path):
    run = hubtune.train("text-classification", model=tiny_model("bert"), data=rows, set=FAST, out=tmp_path / "run")
    with pytest.raises(DataError, match="unknown label"):
        run.evaluate([{"text": "a text", "label": "furious"}])


def test_who_evaluates_on_the_training_rows_is_warned(tiny_model, rows, tmp_path):
    run = hubtune.train("text-classification", model=tiny_model("bert"), data=rows, set=FAST, out=tmp_path / "run")
    for data, warned in ((rows, ["the model was trained on these rows: scores will be optimistic."]), (rows[:8], [])):
        run.evaluate(data, callbacks=(told := RecordingCallbacks(hubtune.Callbacks())))
        assert [text for text in told.warnings if "trained on" in text] == warned


def test_two_runs_of_one_recipe_are_one_and_the_same(tiny_model, rows, tmp_path):
    one = hubtune.train("sentiment", model=tiny_model("bert"), data=rows, set=FAST, out=tmp_path / "one")
    plan = {"train.plan": str(one.folder)}  # measured once for all three: dropout follows the cut
    other = hubtune.train("sentiment", model=tiny_model("bert"), data=rows, set={**FAST, **plan}, out=tmp_path / "other")
    assert (one.folder / "model/model.safetensors").read_bytes() == (other.folder / "model/model.safetensors").read_bytes()
    again = hubtune.train(recipe=one.folder / "recipe.toml", data=rows, set=plan, out=tmp_path / "again")
    assert again.metrics == one.metrics


def test_a_loss_that_is_no_number_stops_and_names_its_step_and_rows(tiny_model, rows, tmp_path):
    with pytest.raises(hubtune.HubtuneError, match=r"the loss of step \d+ is (nan|inf).*; its rows: rows .* of train") as stopped:
        hubtune.train("sentiment", model=tiny_model("bert"), data=rows, out=tmp_path / "run",
                      set={**FAST, "train.learning_rate": 1e30, "train.epochs": 4.0, "train.max_grad_norm": 0.0})
    assert stopped.value.kind == "non-finite-loss"


def test_balanced_weights_and_a_tracker(tiny_model, rows, tmp_path):
    pytest.importorskip("tensorboard")
    run = hubtune.train("sentiment", model=tiny_model("bert"), data=rows, out=tmp_path / "run",
                        set={**FAST, "task.class_weights": "balanced", "train.report_to": "tensorboard"})
    assert list(run.folder.rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("strategy", ["full", "head", "lora"])
@pytest.mark.parametrize("model_type", ["bert", "gpt2", "t5"])
def test_groups_hold_every_trainable_parameter_once(strategy, model_type, tiny_model, rows):
    task = TextClassification()
    base = configuration.open_base(local_origin(tiny_model(model_type)), task)
    base = configuration.apply_setup(base, task.model_config(task.validate_data({"train": rows}), base))
    loaded = loading.load(local_origin(tiny_model(model_type)), base, task, hubtune.Strategy(), seed=0)
    way = registry.load().strategy(PluginChoice(strategy))
    module = way.prepare(loaded.model, loaded.newly_initialized, task, hubtune.Plan(10, 1.0, 8))
    grouped = [id(p) for group in way.param_groups(module, 0.01) for p in group["params"]]
    trainable = [id(p) for p in module.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(trainable)
    assert len(set(grouped)) == len(grouped)


def test_the_head_learns_faster_where_everything_learns(tiny_model, rows, tmp_path):
    run = hubtune.train("sentiment", model=tiny_model("bert"), data=rows, out=tmp_path / "run",
                        set={**FAST, "train.learning_rate": 1e-3, "strategy.head_rate": 0.0, "train.keep": "last"})
    task, origin = run.task, local_origin(tiny_model("bert"))
    base = configuration.open_base(origin, task)
    base = configuration.apply_setup(base, task.model_config(run.record["facts"], base))
    start = dict(loading.load(origin, base, task, hubtune.Strategy(), seed=0).model.named_parameters())
    moved = {name for name, p in run.load_weights()[0].named_parameters() if not torch.equal(p, start[name])}
    assert "bert.encoder.layer.0.output.dense.weight" in moved
    assert "classifier.weight" not in moved  # a rate of 0


def test_a_model_that_padding_changes_only_sees_rows_of_one_length(tiny_model, rows):
    """Without a mask, as in FNet: the change is noticed, and batches of one length undo it."""

    class Maskless(TextClassification):
        def collate(self, examples, base, rngs):
            batch = super().collate(examples, base, rngs)
            del batch.inputs["attention_mask"]
            return batch

    task = Maskless()
    model, base, encoded = prepared(task, tiny_model("bert"), rows)
    assert model_checks.depends_on_padding(model, task, base, encoded)
    together = Predictor(model, task, base, uniform=True).predict(rows, encoded)
    for index in (0, 7, 21):
        one = encoding.encode(task, rows[index : index + 1], base, 60)
        alone = Predictor(model, task, base).predict(rows[index : index + 1], one)[0]
        assert alone["probabilities"] == pytest.approx(together[index]["probabilities"], abs=1e-9)


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_agree_with_scipy(ties):
    from scipy.stats import pearsonr, spearmanr

    draw = np.random.default_rng(0)
    gold, found = draw.integers(0, 6, (2, 200)).astype(float) if ties else draw.normal(size=(2, 200))
    scores = number_scores(gold, found)
    assert scores["pearson"] == pytest.approx(pearsonr(gold, found).statistic)
    assert scores["spearman"] == pytest.approx(spearmanr(gold, found).statistic)
    assert number_scores([1.0, 1.0], [0.0, 2.0])["spearman"] == 0.0
