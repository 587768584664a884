"""Answers about images: SmolVLM (Idefics3), LLaVA and Gemma 3 kinds, learnt, proven and asked by a plain pipeline."""

import importlib.util
import io
import json

import pytest
from transformers import pipeline

import hubtune
from hubtune.errors import DataError, ModelError
from hubtune.testing import TaskConformance, tiny_model

pytest.importorskip("PIL", reason="images need: pip install 'hubtune[vision]'")

from hubtune_plugins.vision_language.dialogues import dialogue
from hubtune_plugins.vision_language.fixtures import asked
from hubtune_plugins.vision_language.image_text_to_text import ImageTextToText
from hubtune_plugins.writing.likelihood import IGNORED

from tests.tiny import losses_add_up, prepared

KINDS = ("idefics3", "llava", "gemma3")


class TestImageTextToText(TaskConformance):
    plugin = ImageTextToText
    options = {"max_new_tokens": 4}
    model = "llava"
    rows = 12


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    made = {}

    def build(kind):
        if kind not in made:
            made[kind] = tiny_model(kind, tmp_path_factory.mktemp("vlm") / f"tiny-{kind}")
        return made[kind]

    return build


def picture(row):
    from PIL import Image

    return Image.open(io.BytesIO(row["image"]["bytes"]))


@pytest.mark.parametrize("kind", ["idefics3", "gemma3"])  # the conformance tests train a LLaVA
def test_rows_are_learnt_by_heart_and_a_plain_pipeline_answers_alike(kind, tiny, tmp_path):
    rows = asked(4)
    run = hubtune.train("image-text-to-text", model=tiny(kind), strategy="full", data={"train": rows, "validation": rows},
                        out=tmp_path / "run", set={
                            "train.max_steps": 60, "train.batch_size": 4, "train.learning_rate": 1e-2, "train.schedule": "constant",
                            "train.keep": "last", "train.weight_decay": 0.0, "train.early_stopping_patience": 0,
                            "train.evals_per_epoch": 1, "task.max_new_tokens": 8})
    assert run.metrics["loss"] < 0.1
    assert run.metrics["exact_match"] == 1.0
    assert run.record["proof"]["asked"]["ways"] == ["pipeline"]
    assert run.predict([{"image": row["image"], "prompt": row["prompt"]} for row in rows]) == [{"text": row["completion"]} for row in rows]
    plain = pipeline("image-text-to-text", model=str(tmp_path / "run" / "model"))
    for row in rows:
        question = {"role": "user", "content": [{"type": "image", "image": picture(row)}, {"type": "text", "text": row["prompt"]}]}
        assert plain([question], max_new_tokens=8, return_full_text=False)[0]["generated_text"].strip() == row["completion"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_costs_the_same_alone_and_padded_beside_rows_with_more_and_without_images(kind, tiny):
    two = {"images": [asked(1)[0]["image"]] * 2, "prompt": "Are these two alike, or not?", "completion": "alike"}
    task = ImageTextToText()
    model, base, encoded = prepared(task, tiny(kind), [*asked(2), two, {"prompt": "No image.", "completion": "so"}], None)
    examples = [encoded.examples[row] for row in range(4 if kind != "idefics3" else 3)]
    losses_add_up(task, model, base, examples)
    together = task.predict(model, task.collate(examples, base, None), base)
    assert together == [task.predict(model, task.collate([one], base, None), base)[0] for one in examples]


def test_chat_rows_with_images_learn_the_answers_after_the_last_image(tiny):
    image = asked(1)[0]["image"]
    said = [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "Which colour?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
            {"role": "user", "content": "And again?"}, {"role": "assistant", "content": "still red"}]
    task = ImageTextToText()
    _, base, encoded = prepared(task, tiny("llava"), [{"messages": said, "images": [image]}], None)
    example = encoded.examples[0]
    batch = task.collate([example], base, None)
    learnt = batch.inputs["input_ids"][batch.targets["labels"] != IGNORED]
    assert base.processor.tokenizer.decode(learnt) == "red</s>still red</s>"
    hidden = task.question({"messages": said, "images": [image]})
    assert [turn["role"] for turn in hidden["messages"]] == ["user", "assistant", "user"]
    [[asked_alone]] = task.encode([hidden], base)
    assert asked_alone["text"] == example["text"]


def test_llavas_form_of_data_is_read():
    said, images = dialogue({"messages": json.dumps([{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]),
                             "image": "cat.png"})
    assert images == ["cat.png"]
    assert said == [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
                    {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}]


@pytest.mark.parametrize(("row", "message"), [
    ({"prompt": "<image> and <image>?", "completion": "a", "image": "a.png"}, "2 places for images, and the row has 1 image"),
    ({"prompt": "What?", "completion": " ", "image": "a.png"}, "no answer at their end, or an empty one"),
    ({"prompt": "What?", "completion": "a"}, "no row of train has an image"),
    ({"messages": [{"role": "user", "content": [{"type": "video"}]}], "image": "a.png"}, "a part of the type 'video'"),
])
def test_rows_that_cannot_be_learnt_are_refused_with_the_reason(row, message):
    with pytest.raises(DataError, match=message):
        ImageTextToText().validate_data({"train": [row]})


def test_a_missing_image_and_a_row_that_is_too_long_are_refused_by_their_row(tiny):
    task = ImageTextToText()
    with pytest.raises(DataError, match=r"no-such.png"):
        prepared(task, tiny("llava"), [{"image": "no-such.png", "prompt": "What?", "completion": "a"}], None)
    with pytest.raises(DataError, match="tokens with its 1 image, and 30 are read at most"):
        prepared(task, tiny("llava"), asked(1), 30)


def test_a_model_for_texts_alone_is_refused(tmp_path):
    with pytest.raises(ModelError, match="image-text-to-text"):
        hubtune.train("image-text-to-text", model=tiny_model("llama", tmp_path / "tiny"), data={"train": asked(8)}, out=tmp_path / "run")


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="with torchvision, it can be opened")
def test_a_processor_that_needs_torchvision_says_what_to_install(tmp_path):
    with pytest.raises(ModelError) as refused:
        hubtune.train("image-text-to-text", model=tiny_model("qwen2_5_vl", tmp_path / "tiny"), data={"train": asked(8)}, out=tmp_path / "run")
    assert "requires the Torchvision library" in str(refused.value)
    assert "pip install torchvision" in refused.value.hint
