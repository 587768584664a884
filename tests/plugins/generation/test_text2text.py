"""Text to text: what the decoder is shown and asked for, that batches change nothing, and the scores of texts."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from hubtune_plugins.generation.scores import script_of, text_scores
from hubtune_plugins.generation.text2text_generation import RewritingOptions, Text2TextGeneration
from hubtune_plugins.writing.likelihood import IGNORED
from tiny import counts, gold_answer

import hubtune
from hubtune.hub.origin import local_origin
from hubtune.models import configuration, loading
from hubtune.testing import TaskConformance

pytest.importorskip("sacrebleu", reason="scores of texts come with: pip install 'hubtune[generation]'")
pytest.importorskip("torchmetrics", reason="scores of texts come with: pip install 'hubtune[generation]'")

ROWS = [
    {"text": "The kettle broke after two weeks.", "target": "It broke."},
    {"text": "Best soup in town; the waiter was kind and quick, and the bill was right.",
     "target": "Good soup, kind waiter."},
    {"text": "It is a chair.", "target": "A chair: four legs, one seat, grey, near the station."},
]


def prepared(task, folder):
    origin = local_origin(folder)
    base = configuration.open_base(origin, task)
    base = configuration.apply_setup(base, task.model_config({}, base))
    model = loading.load(origin, base, task, hubtune.Strategy(), seed=0).model.double().eval()
    return model, base


def examples_of(task, rows, base):
    return [example for examples in task.encode(rows, base) for example in examples]


def loss(task, model, base, examples):
    batch = task.collate(examples, base, None)
    found = task.loss(task.forward(model, batch), batch)
    return dataclasses.replace(found, total=found.total.detach())


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_the_loss_is_the_library_s_and_additive(model_type, tiny_model):
    task = Text2TextGeneration()
    model, base = prepared(task, tiny_model(model_type))
    examples = examples_of(task, ROWS, base)
    assert all(example["labels"][-1] == base.processor.eos_token_id for example in examples)
    whole, alone = loss(task, model, base, examples), [loss(task, model, base, [example]) for example in examples]
    count = counts(task, base, examples)["loss"]
    assert count == sum(len(example["labels"]) for example in examples)
    assert torch.allclose(whole.total, sum(part.total for part in alone), rtol=1e-12)
    batch = task.collate(examples, base, None)
    inputs = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
    library = model(**inputs, labels=batch.targets["labels"]).loss.detach()
    assert torch.allclose(whole.total / count, library, rtol=1e-12)
    judged = task.postprocess(task.forward(model, batch), batch, base)
    assert sum(answer["nll"] for answer in judged) == pytest.approx(float(whole.total), rel=1e-12)
    assert task.num_tokens(examples[0]) == len(examples[0]["input_ids"]) + len(examples[0]["labels"])


def test_a_model_that_hears_and_writes_is_no_encoder_with_a_decoder():
    base = hubtune.Base("a/hears", "0", SimpleNamespace(is_encoder_decoder=False), None)
    with pytest.raises(hubtune.ModelError, match="it has no decoder apart from what reads the text"):
        Text2TextGeneration().model_config({}, base)


def test_the_decoder_begins_as_its_configuration_says_or_sensibly(tiny_model):
    task = Text2TextGeneration()
    _, base = prepared(task, tiny_model("bart"))
    batch = task.collate(examples_of(task, ROWS, base), base, None)
    shown, labels = batch.inputs["decoder_input_ids"], batch.targets["labels"]
    assert set(shown[:, 0].tolist()) == {base.config.decoder_start_token_id} == {2}
    assert torch.equal(shown[:, 1:], labels[:, :-1].where(labels[:, :-1] != IGNORED, base.processor.pad_token_id))
    silent = SimpleNamespace(decoder_start_token_id=None, get_text_config=lambda decoder: SimpleNamespace())
    assert task.start(dataclasses.replace(base, config=silent)) == base.processor.bos_token_id == 0
    _, other = prepared(task, tiny_model("t5"))
    assert task.start(dataclasses.replace(other, config=silent)) == other.processor.pad_token_id
    asked = task.collate(examples_of(task, [{"text": "a text"}], base), base, None)
    assert asked.targets is None
    assert asked.inputs["decoder_input_ids"].shape == (1, 1)


@pytest.mark.parametrize("model_type", ["t5", "bart"])
@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_written_does_not_depend_on_the_batch_and_is_the_card_s(model_type, beams, tiny_model):
    task = Text2TextGeneration(RewritingOptions(max_new_tokens=8, num_beams=beams, prefix="short: "))
    scale = {"initializer_factor": 3.0} if model_type == "t5" else {"init_std": 0.5}
    model, base = prepared(task, tiny_model(model_type, **scale))
    examples = examples_of(task, [{"text": row["text"]} for row in ROWS], base)
    together = task.predict(model, task.collate(examples, base, None), base)
    assert together == [task.predict(model, task.collate([e], base, None), base)[0] for e in examples]
    assert len({answer["text"] for answer in together}) > 1
    lines = task.usage("a/repo", base).replace("What a lovely day", ROWS[0]["text"]).splitlines()
    said = []
    exec("\n".join(lines[4:]), {"tokenizer": base.processor, "model": model, "print": said.append})
    assert said[0].strip() == together[0]["text"]


@pytest.mark.parametrize("last", [False, True])
def test_languages_are_set_and_start_what_is_written(last, tiny_model):
    """M2M100, NLLB and mBART-50 begin targets with the language; mBART ends them, and begins to write, with it."""
    task = Text2TextGeneration(RewritingOptions(source_lang="kind", target_lang="quick"))
    _, base = prepared(Text2TextGeneration(), tiny_model("t5"))
    with pytest.raises(hubtune.ModelError, match="no language 'kind'"):
        task.model_config({}, base)
    word = {name: base.processor(name).input_ids[0] for name in ("kind", "quick")}

    class Languages:
        def __init__(self, inner):
            self.inner, self.src_lang, self.tgt_lang = inner, None, None

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def get_lang_id(self, name):
            return word[name]

        def __call__(self, text=None, text_target=None, **more):
            found = self.inner(text if text_target is None else text_target, **more)
            mark = [word[self.tgt_lang if text is None else self.src_lang]]
            found["input_ids"] = found["input_ids"] + mark if last else mark + found["input_ids"]
            return found

    base = dataclasses.replace(base, processor=Languages(base.processor))
    base = configuration.apply_setup(base, task.model_config({}, base))
    assert (base.processor.src_lang, base.processor.tgt_lang) == ("kind", "quick")
    example, = examples_of(task, ROWS[:1], base)
    assert example["labels"][-1 if last else 0] == word["quick"]
    assert example["labels"].count(base.processor.eos_token_id) == 1
    assert task.forced(base) == ({} if last else {"forced_bos_token_id": word["quick"]})
    assert task.start(base) == (word["quick"] if last else base.config.decoder_start_token_id)
    assert (f"forced_bos_token_id={word['quick']}" in task.usage("a/repo", base)) is not last


def test_texts_are_cut_and_keep_their_end(tiny_model):
    task = Text2TextGeneration()
    _, base = prepared(task, tiny_model("t5"))
    for example in examples_of(task, ROWS, dataclasses.replace(base, max_length=6)):
        assert len(example["input_ids"]) <= 6
        assert len(example["labels"]) <= 6
        assert example["labels"][-1] == example["input_ids"][-1] == base.processor.eos_token_id


def test_scores_of_texts():
    wanted = [row["target"] for row in ROWS]
    best = {"chrf": 100.0, "bleu": 100.0, "rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}
    assert text_scores(wanted, wanted) == pytest.approx(best)
    assert max(text_scores(["xyz"] * 3, wanted).values()) < 5
    # ROUGE-1 by hand: 2 of 3 words found, 2 of 2 right; ROUGE-L: one of them in order
    swapped = text_scores(["soup good"], ["Good soup, kind"])
    assert swapped["rouge1"] == pytest.approx(2 * (1 * 2 / 3) / (1 + 2 / 3))
    assert swapped["rougeL"] == pytest.approx(2 * (1 / 2 * 1 / 3) / (1 / 2 + 1 / 3))
    chinese = ["我是这房子的主人。", "他死于胃癌了。"]
    assert script_of(chinese) == "zh"
    assert script_of(["これはペンです", "家がある"]) == "char"
    assert script_of(wanted) == script_of(["Привет, мир"]) == "13a"
    assert text_scores(chinese, chinese) == pytest.approx(best)
    assert 0.5 < text_scores(["我是房子的主人。", chinese[1]], chinese)["rouge1"] < 1
    assert text_scores(["Привет, мир"], ["Привет, мир"])["rouge1"] == 1


def test_predictions_are_scored_by_likelihood_and_where_they_are_written_as_texts(tiny_model):
    task = Text2TextGeneration()
    model, base = prepared(task, tiny_model("t5"))
    gold = [gold_answer(task, row, base) for row in ROWS]
    assert task.score(gold, ROWS, base) == pytest.approx(
        {"loss": 0, "token_accuracy": 1, "chrf": 100, "bleu": 100, "rouge1": 1, "rouge2": 1, "rougeL": 1})
    batch = task.collate(examples_of(task, ROWS, base), base, None)
    with torch.no_grad():
        judged = task.postprocess(task.forward(model, batch), batch, base)
    assert set(task.score(judged, ROWS, base)) == {"loss", "token_accuracy"}
    assert task.show({**judged[0], "text": "a"}) == {"text": "a"}
    assert [column.role for column in Text2TextGeneration.columns if column.target] == ["target"]


class TestConformance(TaskConformance):
    plugin = Text2TextGeneration


def test_the_published_model_writes_whole_texts_when_it_is_asked_without_arguments(tiny_model, tmp_path):
    """As long as the longest target, with as many beams as were measured; not as the base's own task wanted."""
    folder = Path(shutil.copytree(tiny_model("bart", init_std=0.5, max_position_embeddings=300), tmp_path / "base"))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 290}))
    said = {"max_length": 20, "min_length": 12, "early_stopping": True, "length_penalty": 2.0, "num_beams": 4}
    (folder / "generation_config.json").write_text(json.dumps(said))
    long = " ".join(["the kind waiter"] * 50)
    rows = [*ROWS, {"text": "Everything.", "target": long}, *({"text": f"A kettle {n}.", "target": "It broke."} for n in range(8))]
    run = hubtune.train("text2text-generation", model=folder, data=rows, out=tmp_path / "run",
                        set={"train.max_steps": 1, "train.max_length": 400, "data.validation": 0.2, "train.precision": "fp32"})
    found = json.loads((tmp_path / "run" / "model" / "generation_config.json").read_text())
    assert found["max_new_tokens"] > 128
    assert found["num_beams"] == 1
    assert not {"max_length", "min_length", "early_stopping", "length_penalty"} & found.keys()
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run" / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    inputs = tokenizer(ROWS[0]["text"], return_tensors="pt")
    written = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    answer = tokenizer.decode(written[0], skip_special_tokens=True).strip()
    assert answer == run.predict([ROWS[0]["text"]])[0]["text"] == hubtune.load(tmp_path / "run" / "model").predict([ROWS[0]["text"]])[0]["text"]
    assert f"max_new_tokens={found['max_new_tokens']}" in (tmp_path / "run" / "model" / "README.md").read_text()
