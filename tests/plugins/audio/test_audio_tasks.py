"""The audio tasks: sounds decoded, laws kept on tiny models of unlike architectures, and answers as a pipeline's."""

import io
import json

import numpy as np
import pytest
import torch
from tiny import gold_answer, sample
from transformers import Wav2Vec2CTCTokenizer, pipeline

import hubtune
from hubtune.contract import ExampleRNG
from hubtune.data import encoding
from hubtune.errors import DataError
from hubtune.evaluation import model_checks
from hubtune.evaluation.batches import make_batch
from hubtune.hub.origin import local_origin
from hubtune.models import configuration, loading
from hubtune.testing.sound import MODEL_TYPES, tiny_sound

soundfile = pytest.importorskip("soundfile", reason="sound needs: pip install 'hubtune[audio]'")
soxr = pytest.importorskip("soxr", reason="sound needs: pip install 'hubtune[audio]'")
pytest.importorskip("jiwer", reason="word errors need: pip install 'hubtune[audio]'")

from hubtune_plugins.audio import characters, sounds  # noqa: E402
from hubtune_plugins.audio.audio_classification import AudioClassification, AudioOptions  # noqa: E402
from hubtune_plugins.audio.automatic_speech_recognition import SpeechOptions, SpeechRecognition  # noqa: E402

# PyTorch says so wherever WavLM gets a mask, as all of transformers gives it.
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
CTC = ("wav2vec2", "wavlm", "hubert", "wav2vec2-bert")
BOTH = [(AudioClassification, kind) for kind in MODEL_TYPES] + [(SpeechRecognition, kind) for kind in CTC]
CALM = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout", "layerdrop",
        "dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "encoder_layerdrop", "conformer_conv_dropout",
        "mask_time_prob")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    made = {}

    def build(model_type):
        if model_type not in made:
            made[model_type] = tiny_sound(model_type, tmp_path_factory.mktemp("sound") / f"tiny-{model_type}")
        return made[model_type]

    return build


@pytest.fixture(scope="module")
def stereo(tmp_path_factory):
    """Half a second at 8 kHz: 500 Hz on the left, 1500 Hz on the right."""
    path = tmp_path_factory.mktemp("files") / "two.wav"
    time = np.arange(4000) / 8000
    soundfile.write(path, np.stack([np.sin(2 * np.pi * 500 * time), np.sin(2 * np.pi * 1500 * time)], 1) * 0.5, 8000)
    return path


def prepared(task, folder, rows, dtype=torch.float64, **more):
    """A model for the task without dropout and SpecAugment, and its examples. more: changes of its configuration."""
    dataset_info = json.loads(json.dumps(task.validate_data({"train": rows})))
    origin = local_origin(folder)
    base = configuration.open_base(origin, task)
    base = configuration.apply_setup(base, task.model_config(dataset_info, base))
    for name in CALM:
        if hasattr(base.config, name) and name not in more:
            setattr(base.config, name, 0.0)
    for name, value in more.items():
        setattr(base.config, name, value)
    model = loading.load(origin, base, task, hubtune.Strategy(), seed=0).model.to(dtype)
    return model, base, [example for examples in task.encode(rows, base) for example in examples]


# ------------------------------------------------------------------------------------------------------------ sounds


def test_a_sound_is_the_same_from_a_file_its_bytes_and_an_array(stereo):
    wave, rate = soundfile.read(stereo, dtype="float32")
    from_path = sounds.decode(str(stereo), 16000)
    assert from_path.shape == (8000,)
    assert from_path.dtype == np.float32
    assert np.array_equal(from_path, soxr.resample(wave.mean(1), 8000, 16000))
    spectrum = np.abs(np.fft.rfft(from_path[1000:5000]))  # bins of 4 Hz
    assert sorted(np.argsort(spectrum)[-2:] * 4) == [500, 1500]
    array = {"array": wave, "sampling_rate": rate}
    for value in ({"path": str(stereo), "bytes": None}, {"bytes": stereo.read_bytes(), "path": None}, array,
                  {"array": wave.T.tolist(), "sampling_rate": rate}):
        assert np.allclose(sounds.decode(value, 16000), from_path, atol=1e-6)
        assert sounds.frames_of([value], 16000) == [24]
    integers = {"array": (wave * 32768).astype(np.int16), "sampling_rate": rate}
    assert np.allclose(sounds.decode(integers, 16000), from_path, atol=1e-3)
    assert np.array_equal(sounds.decode(wave.mean(1), 8000), wave.mean(1))  # a bare array has the model's rate


def test_a_sound_shorter_than_a_frame_is_filled_with_silence():
    assert sounds.decode(np.ones(10, np.float32), 16000).tolist() == [1.0] * 10 + [0.0] * 390


def test_sounds_that_cannot_be_read_are_named_with_their_rows(tmp_path, tiny):
    (tmp_path / "noise.wav").write_bytes(b"no sound at all")
    rows = [row["audio"] for row in sample(AudioClassification(), 2)]
    with pytest.raises(DataError, match=r"rows 3, 4: the sound '.*noise.wav' cannot be read: Format not") as refused:
        sounds.frames_of([*rows, str(tmp_path / "noise.wav"), {"path": str(tmp_path / "gone.wav")}], 16000)
    assert "flac" in refused.value.hint
    file = io.BytesIO()
    soundfile.write(file, np.zeros(16000), 16000, format="FLAC", subtype="PCM_16")
    task = AudioClassification()
    _, base, _ = prepared(task, tiny("hubert"), sample(task, 2))
    for value, reason in (({"bytes": file.getvalue()[:60]}, "cannot be read"), ([0.0, float("nan")], "no numbers"),
                          ({"array": [], "sampling_rate": 8000}, "no samples")):
        with pytest.raises(DataError, match=f"row 8: .*{reason}"):
            task.collate([{"audio": value, "row": 7, "frames": 50, "size": 50}], base, None)


def test_long_sounds_are_cut_anywhere_in_training_and_in_the_middle_otherwise(tiny):
    ramp = {"array": np.linspace(-1, 1, 32000).tolist(), "sampling_rate": 16000}
    rows = [{"audio": ramp, "label": label} for label in ("up", "down")]
    task = AudioClassification(AudioOptions(max_seconds=0.5))
    _, base, examples = prepared(task, tiny("hubert"), rows)
    base.processor.do_normalize = False
    assert [task.num_tokens(example) for example in examples] == [25, 25]

    def starts(rngs):
        found = task.collate(examples, base, rngs).inputs["input_values"]
        assert found.shape == (2, 8000)
        return found[:, 0].tolist()

    assert starts(None) == pytest.approx([-0.25, -0.25], abs=1e-3)
    drawn = starts([ExampleRNG(0, 1, 0), ExampleRNG(0, 1, 1)])
    assert drawn == starts([ExampleRNG(0, 1, 0), ExampleRNG(0, 1, 1)])
    assert len({*drawn, *starts([ExampleRNG(0, 2, 0), ExampleRNG(0, 2, 1)])}) == 4
    whole = AudioClassification(AudioOptions(max_seconds=0.0))
    assert [whole.num_tokens(example) for [example] in whole.encode([{"audio": ramp}] * 2, base)] == [99, 99]


# -------------------------------------------------------------------------------------------------------------- laws


def gradient(task, model, base, examples, cuts):
    model.zero_grad()
    batches = [make_batch(model, task, [examples[i] for i in part], base, [ExampleRNG(0, 0, i) for i in part]) for part in cuts]
    count = sum(batch.counts["loss"] for batch in batches)
    for batch in batches:
        loss = task.loss(task.forward(model, batch), batch)
        (loss.total / count).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(("kind", "model_type"), BOTH)
def test_no_answer_and_no_gradient_depends_on_the_batch(kind, model_type, tiny):
    task = kind()
    rows = sample(task, 5)
    model, base, examples = prepared(task, tiny(model_type), rows)
    model.train()
    whole = gradient(task, model, base, examples, [range(5)])
    parts = gradient(task, model, base, examples, [[0, 3], [1], [4, 2]])
    assert torch.linalg.norm(parts - whole) <= 1e-9 * torch.linalg.norm(whole)
    model.eval()
    with torch.no_grad():
        together = task.forward(model, make_batch(model, task, examples, base)).logits
        for index in (0, 1):
            alone = task.forward(model, make_batch(model, task, examples[index : index + 1], base)).logits[0]
            kept = together[index][: len(alone)] if together.ndim == 3 else together[index]
            assert torch.allclose(alone, kept, rtol=0, atol=1e-9)
    gold = [gold_answer(task, row, base) for row in rows]
    best, other = task.score(gold, rows, base), task.score(gold[1:] + gold[:1], rows, base)
    name, sign = task.metric.name, 1 if task.metric.higher_is_better else -1
    assert sign * best[name] > sign * other[name]
    assert set(best.values()) == {1.0 if kind is AudioClassification else 0.0}


@pytest.mark.parametrize("kind", [AudioClassification, SpeechRecognition])
@pytest.mark.parametrize("frames", [6, 25])
def test_augmentation_follows_the_seed_of_the_step_and_bears_short_sounds(frames, kind, tiny):
    """SpecAugment's masks cover ten frames; the library refuses to make them for a batch that has fewer."""
    task = kind()
    rows = [{**row, "audio": {"array": (row["audio"]["array"] * 2)[: 320 * frames], "sampling_rate": 16000}}
            for row in sample(task, 3)]
    model, base, examples = prepared(task, tiny("wav2vec2"), rows, torch.float32, mask_time_prob=0.5)
    assert base.config.mask_time_length == 10
    model.train()
    batch = task.collate(examples, base, [ExampleRNG(0, 0, i) for i in range(3)])

    def loss(seed):
        torch.manual_seed(seed)  # as the engine does before every micro-batch
        np.random.seed(seed)
        return float(task.loss(task.forward(model, batch), batch).total.detach())

    np.random.seed(1)
    first = loss(0)
    np.random.seed(2)
    assert loss(0) == first
    assert (len({loss(seed) for seed in range(4)}) > 1) is (frames > 10)


@pytest.mark.parametrize("kind", [AudioClassification, SpeechRecognition])
@pytest.mark.parametrize("model_type", ["wav2vec2", "wav2vec2-bert"])
def test_augmentation_hides_the_share_that_the_model_s_configuration_says(model_type, kind, tiny):
    """A spoken word has some 25 frames, of which the library's two masks at least would hide most in every step."""
    task = kind()
    model, base, _ = prepared(task, tiny(model_type), sample(task, 3), torch.float32, mask_time_prob=0.05)
    body = model.base_model.train()
    torch.nn.init.ones_(body.masked_spec_embed)
    np.random.seed(0)
    with torch.no_grad():
        hidden = [float(body._mask_hidden_states(torch.zeros(1, 25, base.config.hidden_size)).mean()) for _ in range(500)]
    assert 0.03 < np.mean(hidden) < 0.07


@pytest.mark.parametrize(("kind", "model_type", "steps"), [
    (AudioClassification, "hubert", 25), (SpeechRecognition, "wav2vec2-bert", 60),
])
def test_a_few_rows_are_learnt_by_heart(kind, model_type, steps, tiny):
    task = kind()
    rows = sample(task, 4)
    model, base, examples = prepared(task, tiny(model_type), rows, torch.float32)
    batch = task.collate(examples, base, None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    losses = []
    for _ in range(steps):
        loss = task.loss(task.forward(model, batch), batch)
        losses.append(float(loss.total.detach()) / batch.counts["loss"])
        optimizer.zero_grad()
        (loss.total / batch.counts["loss"]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    model.eval()
    with torch.no_grad():
        found = task.postprocess(task.forward(model, batch), batch, base)
    assert task.score(found, rows, base)[task.metric.name] == (1.0 if kind is AudioClassification else 0.0)


def test_a_run_answers_as_it_did_and_as_a_plain_pipeline_does(tiny, tmp_path):
    rows = sample(SpeechRecognition(), 10)
    run = hubtune.train("automatic-speech-recognition", model=tiny("wavlm"), data={"train": rows, "validation": rows[:4]},
                        out=tmp_path / "run", set={"train.max_steps": 2, "train.batch_size": 4, "train.verify": False})
    assert set(run.metrics) == {"wer", "cer"}
    assert run.evaluate(rows[:4])["metrics"] == run.metrics
    ours = hubtune.load(tmp_path / "run" / "model").predict([{"audio": row["audio"]} for row in rows[:4]])
    plain = pipeline("automatic-speech-recognition", model=str(tmp_path / "run" / "model"))
    assert [plain(np.array(row["audio"]["array"], np.float32)) for row in rows[:4]] == ours


@pytest.mark.parametrize("model_type", ["wav2vec2", "hubert", "wav2vec2-bert", "audio-spectrogram-transformer", "whisper"])
def test_classes_are_those_of_a_plain_pipeline(model_type, tiny, tmp_path):
    task = AudioClassification()
    rows = sample(task, 3)
    model, base, examples = prepared(task, tiny(model_type), rows, torch.float32)
    model.eval().save_pretrained(tmp_path)
    base.processor.save_pretrained(tmp_path)
    batch = task.collate(examples, base, None)
    with torch.no_grad():
        ours = task.postprocess(task.forward(model, batch), batch, base)
    plain = pipeline("audio-classification", model=str(tmp_path))
    for row, found in zip(rows, ours, strict=True):
        theirs = {one["label"]: one["score"] for one in plain(np.array(row["audio"]["array"], np.float32))}
        assert theirs == pytest.approx(found["probabilities"], abs=1e-6)


# ------------------------------------------------------------------------------------------- labels and vocabularies


def test_labels_are_strings_and_unknown_ones_are_refused(tiny):
    task = AudioClassification()
    tone = sample(task, 1)[0]["audio"]
    rows = [{"audio": tone, "label": label} for label in (0, 1.0, 10, 2)]
    assert task.validate_data({"train": rows})["labels"] == ["0", "1", "2", "10"]
    _, base, _ = prepared(task, tiny("hubert"), rows)
    assert base.config.id2label == {0: "0", 1: "1", 2: "2", 3: "10"}
    with pytest.raises(DataError, match="unknown label '7'; the model's labels: '0', '1', '2', '10'"):
        list(task.encode([{"audio": tone, "label": 7}], base))
    table = task.report([gold_answer(task, row, base) for row in rows], rows, base)
    assert table["10"]["support"] == 1


def test_a_vocabulary_is_made_of_the_train_split_s_characters(tiny):
    rows = [{"audio": [0.0] * 16000, "text": "Don\u2019t | stop, “NOW”!"}, {"audio": [0.0] * 16000, "text": "Größe"}]
    task = SpeechRecognition()
    _, base, examples = prepared(task, tiny("hubert"), rows)
    tokenizer = base.processor.tokenizer
    letters = sorted(set("don'tstopnowgröße"))
    assert tokenizer.get_vocab() == {token: index for index, token in enumerate([*characters.SPECIAL, *letters])}
    assert base.config.vocab_size == len(tokenizer) == len(letters) + 5
    assert base.config.pad_token_id == tokenizer.pad_token_id == task.blank == 0
    assert tokenizer.decode(examples[0]["ids"], group_tokens=False) == "don't stop now"
    assert gold_answer(task, rows[1], base) == {"text": "größe"}
    strange = next(iter(task.encode([{**rows[0], "text": "xo"}], base)))[0]["ids"]
    assert strange == [tokenizer.unk_token_id, tokenizer.get_vocab()["o"]]
    upper = SpeechRecognition(SpeechOptions(casing="upper", punctuation="keep"))
    _, base, examples = prepared(upper, tiny("hubert"), rows)
    assert base.processor.tokenizer.decode(examples[0]["ids"], group_tokens=False) == "DON'T STOP, “NOW”!"


@pytest.mark.parametrize(("text", "kept"), [("Abba", True), ("abc", False)])
def test_the_model_s_own_vocabulary_is_kept_where_it_can_write_the_data(text, kept, tiny, tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "B": 5, "A": 6}))
    for path in tiny("hubert").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")).save_pretrained(tmp_path)
    task = SpeechRecognition()
    _, base, [example] = prepared(task, tmp_path, [{"audio": [0.0] * 16000, "text": text}])
    assert (task.case == "upper") is kept
    assert example["ids"] == ([6, 5, 5, 6] if kept else [5, 6, 7])
    assert base.config.vocab_size == (32 if kept else 8)  # 32: as the model's configuration says


def test_transcriptions_that_do_not_fit_are_refused_with_their_rows(tiny):
    rows = [{"audio": [0.0] * 16000, "text": text} for text in ("fits", "!?", "far too long " * 5)]
    with pytest.raises(DataError, match=r"1 of 3 rows have a transcription without a letter: row 2 of train"):
        SpeechRecognition().validate_data({"train": rows})
    info = SpeechRecognition().validate_data({"train": rows[::2]})
    base = configuration.open_base(local_origin(tiny("hubert")), SpeechRecognition())
    with pytest.raises(DataError, match=r"1 of 2 rows have more letters than frames .*: row 2 of train. CTC cannot"):
        SpeechRecognition().model_config(info, base)


def test_a_model_that_cannot_write_is_refused(tiny):
    task = SpeechRecognition()
    with pytest.raises(hubtune.ModelError, match="no tokenizer"):
        task.model_config({}, configuration.open_base(local_origin(tiny("wavlm")), task))


def test_nothing_depends_on_length_in_a_real_evaluation(tiny):
    task = AudioClassification()
    rows = sample(task, 6)
    model, base, _ = prepared(task, tiny("wav2vec2"), rows, torch.float32)
    encoded = encoding.encode(task, rows, base, None)
    assert not model_checks.depends_on_padding(model, task, base, encoded)
