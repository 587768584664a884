"""Speech recognition with a decoder: Whisper, Speech2Text and Moonshine kinds, asked as their users ask them."""

import json

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, pipeline

import hubtune
from hubtune.cli.prediction_commands import file_warnings
from hubtune.errors import DataError, ModelError
from hubtune.evaluation.batches import make_batch
from hubtune.hub.origin import local_origin
from hubtune.models import configuration, loading
from hubtune.testing import TaskConformance
from hubtune.testing.fixtures import fixture_for
from hubtune.testing.sound import WORDS, WRITING_TYPES, tiny_sound

pytest.importorskip("soundfile", reason="sound needs: pip install 'hubtune[audio]'")
pytest.importorskip("soxr", reason="sound needs: pip install 'hubtune[audio]'")
pytest.importorskip("jiwer", reason="word errors need: pip install 'hubtune[audio]'")

from hubtune_plugins.audio.automatic_speech_recognition import SpeechOptions, SpeechRecognition
from hubtune_plugins.audio.decoder_recognition import DecoderRecognition
from hubtune_plugins.writing.likelihood import IGNORED

ID = {word: 256 + number for number, word in enumerate(WORDS)}
"""The ids of the special tokens of the tiny Whisper, behind those of the bytes."""


class TestWhisper(TaskConformance):
    plugin = SpeechRecognition
    options = {"language": "de"}
    model = "whisper"
    rows = 8


class TestMoonshine(TaskConformance):
    plugin = SpeechRecognition
    model = "moonshine"
    rows = 8


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    made = {}

    def build(model_type):
        if model_type not in made:
            made[model_type] = tiny_sound(model_type, tmp_path_factory.mktemp("decoders") / f"tiny-{model_type}")
        return made[model_type]

    return build


def sample(count):
    return fixture_for(SpeechRecognition()).sample(SpeechRecognition(), count)


def opened(folder, rows=(), **options):
    """A task for a model, and its base. rows: none: as for a model that was tuned without hubtune."""
    task = SpeechRecognition(SpeechOptions(**options))
    info = task.validate_data({"train": rows}) if rows else {}
    task = configuration.task_for_model(local_origin(folder), task)
    base = configuration.open_base(local_origin(folder), task)
    return task, configuration.apply_setup(base, task.model_config(info, base))


def settings_of(model_type):
    return {"task.language": "de"} if model_type == "whisper" else {}


def test_the_name_of_a_sound_to_predict_is_no_file_of_rows():
    assert file_warnings(["3.wav"], SpeechRecognition(), "model") == []


@pytest.mark.parametrize("model_type", WRITING_TYPES)
def test_rows_are_learnt_by_heart_and_a_plain_pipeline_writes_them(model_type, tiny, tmp_path):
    rows = sample(3)
    sets = {"train.max_steps": 60, "train.batch_size": 3, "train.learning_rate": 1e-2, "train.schedule": "constant", "train.keep": "last", "train.weight_decay": 0.0,
            "train.early_stopping_patience": 0, "train.evals_per_epoch": 1}
    run = hubtune.train("automatic-speech-recognition", model=tiny(model_type), strategy="full",
                        data={"train": rows, "validation": rows}, out=tmp_path / "run", set={**sets, **settings_of(model_type)})
    assert run.metrics["loss"] < 0.1
    assert run.metrics["wer"] == 0.0
    assert run.predict([{"audio": row["audio"]} for row in rows]) == [{"text": row["text"]} for row in rows]
    assert run.record["proof"]["asked"]["ways"] == ["pipeline"]
    plain = pipeline("automatic-speech-recognition", model=str(tmp_path / "run" / "model"))
    assert [plain(np.array(row["audio"]["array"], np.float32))["text"].strip() for row in rows] == [row["text"] for row in rows]


def test_lora_is_proven_through_the_pipeline(tiny, tmp_path):
    rows = sample(4)
    run = hubtune.train("automatic-speech-recognition", model=tiny("whisper"), strategy="lora", data={"train": rows, "validation": rows},
                        out=tmp_path / "run", set={"train.max_steps": 2, "task.language": "german", "task.task": "translate"})
    assert run.record["proof"]["asked"]["rows"] == 3
    saved = json.loads((tmp_path / "run" / "model" / "generation_config.json").read_text())
    assert (saved["language"], saved["task"]) == ("de", "translate")
    assert saved["lang_to_id"] == {f"<|{code}|>": ID[f"<|{code}|>"] for code in ("de", "en", "zh")}
    assert GenerationConfig.from_pretrained(tmp_path / "run" / "model").language == "de"
    assert saved["no_timestamps_token_id"] == ID["<|notimestamps|>"]
    again, _ = opened(tmp_path / "run" / "model")  # without options and facts: the published files say it
    assert again.prompt.ids == [ID[f"<|{name}|>"] for name in ("startoftranscript", "de", "translate", "notimestamps")]


def test_the_class_follows_the_architecture_both_ways(tiny, tmp_path):
    given = SpeechRecognition(SpeechOptions(language="en"))
    given.loss_function = "of the recipe"
    task = configuration.task_for_model(local_origin(tiny("whisper")), given)
    assert type(task) is DecoderRecognition
    assert (task.options, task.loss_function) == (given.options, "of the recipe")
    assert task.model == "AutoModelForSpeechSeq2Seq"
    assert configuration.task_for_model(local_origin(tiny("whisper")), task) is task
    hubert = local_origin(tiny_sound("hubert", tmp_path))
    assert configuration.task_for_model(hubert, given) is given
    task = configuration.task_for_model(hubert, task)
    assert type(task) is SpeechRecognition
    base = configuration.open_base(hubert, task)
    with pytest.raises(ModelError, match="by CTC, and takes neither a language nor a task"):
        task.model_config({}, base)


def test_whisper_reads_language_and_task_and_learns_the_text_alone(tiny):
    rows = [{**row, "text": text} for row, text in zip(sample(2), ("A, b!", "c"), strict=True)]
    task, base = opened(tiny("whisper"), rows, language="de")
    examples = [example for found in task.encode(rows, base) for example in found]
    batch = task.collate(examples, base, None)
    prompt = [ID[f"<|{name}|>"] for name in ("startoftranscript", "de", "transcribe", "notimestamps")]
    text = task.tokenizer(" A, b!", add_special_tokens=False).input_ids
    assert batch.inputs["decoder_input_ids"][0].tolist() == prompt + text
    assert batch.targets["labels"][0].tolist() == [IGNORED] * 3 + [*text, ID["<|endoftext|>"]]
    assert batch.counts["loss"] == 7 + 3
    plain, _ = opened(tiny("whisper"), rows, language="de", casing="lower", punctuation="drop")
    assert plain.written("A, b!") == "a b"


@pytest.mark.parametrize(("options", "message"), [
    ({}, "multilingual, and has to know the language"), ({"language": "klingon"}, "no language 'klingon'; it knows: de, en, zh"),
])
def test_languages_that_whisper_lacks_are_refused(options, message, tiny):
    with pytest.raises(ModelError, match=message):
        opened(tiny("whisper"), sample(2), **options)


def test_an_english_whisper_takes_no_language(tiny, tmp_path):
    folder = tiny_sound("whisper", tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"decoder_start_token_id": ID["<|startoftranscript|>"], "is_multilingual": False}))
    task, _ = opened(folder, sample(2))
    assert task.prompt.ids == [ID["<|startoftranscript|>"], ID["<|notimestamps|>"]]
    with pytest.raises(ModelError, match="knows English alone"):
        opened(folder, sample(2), language="en")


def test_sounds_and_texts_that_are_too_long_are_refused_with_their_row(tiny):
    rows = [sample(1)[0], {"audio": {"array": [0.0] * 40000, "sampling_rate": 16000}, "text": "a"}]
    task, base = opened(tiny("whisper"), rows, language="en")
    with pytest.raises(DataError, match=r"row 2: the sound is 2.5 s long, and the model hears 1 s"):
        list(task.encode(rows, base))
    with pytest.raises(DataError, match="row 1: its text has 42 tokens, and the model writes 28"):
        list(task.encode([{**rows[0], "text": "a" * 40}], base))


@pytest.mark.parametrize("model_type", WRITING_TYPES)
def test_a_loss_does_not_depend_on_longer_sounds_beside_it(model_type, tiny):
    short, long = sample(2)
    rows = [short, {**long, "audio": {"array": (long["audio"]["array"] * 3)[:15000], "sampling_rate": 16000}}]
    task, base = opened(tiny(model_type), rows, **({"language": "en"} if model_type == "whisper" else {}))
    model = loading.load(local_origin(tiny(model_type)), base, task, hubtune.Strategy(), seed=0).model.eval()
    with torch.no_grad():
        for part in model.modules():  # biases are zero at first, which would hide them
            if getattr(part, "bias", None) is not None:
                part.bias.add_(0.1)
        examples = [example for found in task.encode(rows, base) for example in found]
        together = make_batch(model, task, examples, base)
        alone = make_batch(model, task, examples[:1], base)
        both = task.postprocess(task.forward(model, together), together, base)[0]
        assert task.postprocess(task.forward(model, alone), alone, base)[0]["nll"] == pytest.approx(both["nll"], abs=1e-4)
