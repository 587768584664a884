"""Fill-mask: which pieces are hidden, that answers do not depend on the batch, and what a filled text is."""

import math

import pytest
import torch
from hubtune_plugins.text.fill_mask import FillMask, MaskOptions
from hubtune_plugins.text.tokens.pieces import IGNORED
from tiny import counts, gold_answer
from transformers import pipeline

import hubtune
from hubtune.data import encoding
from hubtune.errors import DataError, ModelError
from hubtune.hub.origin import local_origin
from hubtune.models import configuration, loading

TEXTS = [
    "What a lovely day, and what a good walk along the river!", "It is a chair: four legs, one seat, grey.", "Cold food.",
    "The screen flickers, the sound is bad and nobody answers my mails.", "My children loved every minute of the film.",
]
ROWS = [{"text": text} for text in TEXTS]


def opened(folder, task):
    """A model in fp64 with its base."""
    origin = local_origin(folder)
    base = configuration.open_base(origin, task)
    base = configuration.apply_setup(base, task.model_config({}, base))
    return loading.load(origin, base, task, hubtune.Strategy(), seed=0).model.double().eval(), base


def answers(task, model, base, examples):
    batch = task.collate(examples, base, None)
    with torch.no_grad():
        return task.postprocess(task.forward(model, batch), batch, base)


def rngs(count, epoch=0):
    return [hubtune.ExampleRNG(seed=3, epoch=epoch, row=row) for row in range(count)]


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_what_is_hidden(model_type, tiny_model):
    task = FillMask(MaskOptions(probability=0.5))
    _, base = opened(tiny_model(model_type), task)
    one = next(iter(task.encode([{"text": " ".join(TEXTS)}], base)))[0]
    batch = task.collate([one] * 200, base, rngs(200))
    ids, special = torch.tensor(one["input_ids"]), torch.tensor(base.processor.all_special_ids)
    hidden = batch.targets != IGNORED
    ordinary = ~torch.isin(ids, special)
    assert not hidden[:, ~ordinary].any()
    assert (hidden.sum(1) == round(0.5 * int(ordinary.sum()))).all()
    assert torch.equal(batch.inputs["input_ids"][~hidden], ids.expand(200, -1)[~hidden])
    assert torch.equal(batch.targets[hidden], ids.expand(200, -1)[hidden])
    shown = batch.inputs["input_ids"][hidden]
    assert float((shown == base.processor.mask_token_id).double().mean()) == pytest.approx(0.8, abs=0.02)
    assert float((shown == batch.targets[hidden]).double().mean()) == pytest.approx(0.1, abs=0.02)
    assert batch.counts == {"loss": float(hidden.sum())}


def test_masks_are_drawn_anew_in_training_and_never_in_evaluation(tiny_model):
    task = FillMask()
    _, base = opened(tiny_model("bert"), task)
    examples = [found[0] for found in task.encode(ROWS, base)]
    first, same, other = (task.collate(examples, base, rngs(5, epoch)).targets for epoch in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    whole = task.collate(examples, base, None)
    for index, example in enumerate(examples):
        alone = task.collate([example], base, None)
        assert torch.equal(alone.targets[0], whole.targets[index, : len(example["input_ids"])])
    for targets in (first, whole.targets):
        assert ((targets != IGNORED).sum(1) >= 1).all()  # `Cold food.` too, of which 15% is less than half a piece


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "modernbert", "deberta-v2", "bart"])
def test_answers_and_losses_do_not_depend_on_the_batch(model_type, tiny_model):
    task = FillMask()
    model, base = opened(tiny_model(model_type), task)
    examples = [found[0] for found in task.encode([*ROWS, {"text": f"a {base.processor.mask_token} day"}], base)]
    together = answers(task, model, base, examples)
    for example, found in zip(examples, together, strict=True):
        alone = answers(task, model, base, [example])[0]
        assert alone["nll"] == pytest.approx(found["nll"], abs=1e-9)
        assert (alone["tokens"], alone["hits"]) == (found["tokens"], found["hits"])
    assert together[-1]["tokens"] == 0

    def loss(items):
        batch = task.collate([examples[i] for i in items], base, None)
        return task.loss(task.forward(model, batch), batch)

    parts, whole = loss([0, 3]) + loss([1, 2, 4]), loss(range(5))
    assert counts(task, base, examples)["loss"] == sum(found["tokens"] for found in together)
    assert float(parts.total.detach()) == pytest.approx(float(whole.total.detach()), rel=1e-12)
    assert float(whole.total.detach()) == pytest.approx(sum(found["nll"] for found in together), rel=1e-9)


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_long_texts_become_windows_that_hold_every_piece_once(model_type, tiny_model):
    task = FillMask()
    model, base = opened(tiny_model(model_type), task)
    row = {"text": " ".join(TEXTS)}
    whole = next(iter(task.encode([row], base)))[0]["input_ids"]
    assert whole == base.processor(row["text"])["input_ids"]
    encoded = encoding.encode(task, [row], base, 16)
    windows = [example["input_ids"] for example in encoded.examples]
    assert len(windows) > 3
    assert all(len(window) <= 16 and window[0] == whole[0] and window[-1] == whole[-1] for window in windows)
    assert [piece for window in windows for piece in window[1:-1]] == whole[1:-1]
    parts = answers(task, model, base, encoded.examples)
    merged = task.merge(parts, row, base)
    assert merged["tokens"] == sum(part["tokens"] for part in parts)
    scores = task.score([merged], [row], base)
    assert scores["loss"] == pytest.approx(sum(part["nll"] for part in parts) / merged["tokens"])
    assert scores["perplexity"] == pytest.approx(math.exp(scores["loss"]))


@pytest.mark.parametrize("model_type", ["bert", "roberta", "modernbert"])
def test_a_mask_of_the_user_is_filled_as_by_the_pipeline(model_type, tiny_model):
    task = FillMask()
    model, base = opened(tiny_model(model_type), task)
    mask = base.processor.mask_token
    row = {"text": f"What a {mask} day, and what a {mask} walk"}
    merged = task.merge(answers(task, model, base, [next(iter(task.encode([row], base)))[0]]), row, base)
    pipe = pipeline("fill-mask", model=model.float(), tokenizer=base.processor, top_k=1)
    for fill, found in zip(task.show(merged)["fills"], pipe(row["text"]), strict=True):
        assert fill["token"] == found[0]["token_str"].strip()
        assert fill["probability"] == pytest.approx(found[0]["score"], abs=1e-5)
    first, second = (fill["token"] for fill in merged["fills"])
    assert merged["text"] == f"What a {first} day, and what a {second} walk"
    assert mask in task.usage("me/model", base)
    with pytest.raises(DataError, match="could be hidden"):
        task.score([merged], [row], base)


def test_texts_without_masks_show_how_well_they_were_found(tiny_model):
    task = FillMask()
    model, base = opened(tiny_model("bert"), task)
    found = answers(task, model, base, [next(iter(task.encode(ROWS[:1], base)))[0]])
    assert set(task.show(task.merge(found, ROWS[0], base))) == {"loss", "perplexity", "accuracy"}
    best = task.score([gold_answer(task, row, base) for row in ROWS], ROWS, base)
    assert best == {"loss": 0.0, "perplexity": 1.0, "accuracy": 1.0}


def test_a_tokenizer_without_a_mask_is_refused(tiny_model):
    task = FillMask()
    base = configuration.open_base(local_origin(tiny_model("t5")), task)
    with pytest.raises(ModelError, match="no mask token"):
        task.model_config({}, base)
