"""Models of sentence-transformers: their pooling, dense layers, prompts and lengths are read, kept and published."""

import json
import shutil

import numpy as np
import pytest
import torch
from hubtune_plugins.text.sentence_similarity import SentenceSimilarity, SimilarityOptions
from huggingface_hub import snapshot_download
from safetensors.torch import save_file

import hubtune
from hubtune.errors import ModelError
from hubtune.hub.origin import local_origin, locate
from hubtune.models import configuration

PAIRS = [{"text": f"what is number {n}?", "text_pair": f"The number {n} is {'odd' if n % 2 else 'even'}, WE SAY."} for n in range(24)]
TEXTS = ["what is number 3?", "A lovely day", "it is a longer text about a river and a chair", "Soup"]
QUICK = {"train.epochs": 1.0, "train.batch_size": 8, "train.learning_rate": 1e-3}
PROMPTS = {"query": "query: ", "passage": "passage: "}
CLS, MEAN, LAST = ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode_mean_tokens": True},
                   {"pooling_mode": "lasttoken"})
LAYOUTS = {
    "cls with prompts": ("bert", CLS, 0, {"prompts": PROMPTS, "default_prompt_name": None}, ""),
    "dense": ("bert", MEAN, 16, {}, ""),
    "last token": ("llama", LAST, 0, {"prompts": {"instruct": "Find: "}, "default_prompt_name": "instruct"}, ""),
    "sub-folder": ("bert", {"pooling_mode": ["mean", "max"]}, 0, {}, "0_Transformer"),
}


def dense_layer(folder, width, out):
    """A dense layer with weights drawn from a seed."""
    folder.mkdir()
    draw = torch.Generator().manual_seed(3)
    (folder / "config.json").write_text(json.dumps({
        "in_features": width, "out_features": out, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}))
    save_file({"linear.weight": torch.randn(out, width, generator=draw) / 4, "linear.bias": torch.randn(out, generator=draw)},
              folder / "model.safetensors")


def make(base, folder, pooling, dense, prompts, inner, length=48):
    """A repository in the layout of sentence-transformers around a model."""
    shutil.copytree(base, folder / inner)
    names = [(inner, "Transformer"), ("1_Pooling", "Pooling"), *([("2_Dense", "Dense")] if dense else [])]
    (folder / "modules.json").write_text(json.dumps([
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(names)]))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    (folder / inner / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length, "do_lower_case": False}))
    if dense:
        dense_layer(folder / "2_Dense", 32, dense)
    if prompts:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return folder


def read_plainly(folder, texts):
    """The vectors that a folder says, by its files alone: what SentenceTransformer computes, of the kinds that are tested here."""
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    said = json.loads((folder / "1_Pooling" / "config.json").read_text())
    length = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    vectors = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            states = model(**inputs).last_hidden_state[0]
        parts = {"cls_token": states[0], "max_tokens": states.max(0).values, "mean_tokens": states.mean(0), "lasttoken": states[-1]}
        vector = torch.cat([parts[name.removeprefix("pooling_mode_")] for name, value in said.items() if value is True])
        for module in json.loads((folder / "modules.json").read_text())[2:]:
            if module["type"].endswith("Dense"):
                weights = load_file(folder / module["path"] / "model.safetensors")
                vector = torch.tanh(weights["linear.weight"] @ vector + weights["linear.bias"])
            else:
                vector = torch.nn.functional.normalize(vector, dim=-1)
        vectors.append(vector.numpy())
    return np.stack(vectors)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_trained_and_published_and_gives_the_proven_vectors(name, tiny_model, tmp_path, logged_in):
    model_type, pooling, dense, prompts, inner = LAYOUTS[name]
    folder = make(tiny_model(model_type), tmp_path / "base", pooling, dense, prompts, inner)
    run = hubtune.train("sentence-similarity", model=folder, data=PAIRS, out=tmp_path / "run", set=QUICK)
    done = run.publish(f"me/layout-{name.replace(' ', '-')}")
    published = snapshot_download(done["repo"], revision=done["commit"])
    ours = {"none": [one["embedding"] for one in run.predict(TEXTS)]}
    assert len(ours["none"][0]) == (dense or (64 if inner else 32))
    again = hubtune.load(f"{done['repo']}@{done['commit']}").predict(TEXTS)
    assert np.allclose([one["embedding"] for one in again], ours["none"], atol=1e-6)
    said = json.loads((run.folder / "model" / "config_sentence_transformers.json").read_text())
    assert said["prompts"] == prompts.get("prompts", {})
    prompt = run.task.prompt("text", True)
    assert prompt == {"cls with prompts": "query: ", "last token": "Find: "}.get(name, "")
    plain = read_plainly(run.folder / "model", [prompt + text for text in TEXTS])
    assert np.abs(plain - ours["none"]).max() < 1e-6
    library = pytest.importorskip("sentence_transformers", reason="pip install sentence-transformers")
    loaded = library.SentenceTransformer(published, device="cpu", local_files_only=True)
    assert loaded.max_seq_length == 48
    theirs = loaded.encode_query(TEXTS) if "query" in said["prompts"] else loaded.encode(TEXTS)
    assert np.abs(theirs - ours["none"]).max() < 1e-6


@pytest.mark.parametrize("mode", ["max", "mean-sqrt", "weighted-mean", "cls", "last", "mean"])
@pytest.mark.parametrize("left", [False, True])
def test_each_pooling_is_that_of_the_library(mode, left):
    from hubtune_plugins.text.similarity.layout import NAMES, pool

    modules = pytest.importorskip("sentence_transformers.models", reason="pip install sentence-transformers")
    draw = torch.Generator().manual_seed(0)
    hidden, mask = torch.randn(3, 7, 5, generator=draw), torch.ones(3, 7, dtype=torch.long)
    if left:
        mask[0, :4], mask[1, :1] = 0, 0
    else:
        mask[0, 4:], mask[1, 6:] = 0, 0
    theirs = modules.Pooling(5, pooling_mode=next(name for name, ours in NAMES.items() if ours == mode))
    found = theirs({"token_embeddings": hidden, "attention_mask": mask})["sentence_embedding"]
    assert torch.allclose(pool(hidden, mask, mode), found, atol=1e-6)


def opened(folder, **options):
    task = SentenceSimilarity(SimilarityOptions(**options))
    base = configuration.open_base(locate(str(folder)), task)
    return task, configuration.apply_setup(base, task.model_config({"kind": "pairs"}, base))


def test_what_asks_and_what_answers_have_prompts_of_their_own(tiny_model, tmp_path):
    folder = make(tiny_model("bert"), tmp_path / "base", CLS, 0, {"prompts": PROMPTS, "default_prompt_name": None}, "")
    for prompts, expected in (("auto", ["query: ", "passage: "]), ("none", ["", ""])):
        task, base = opened(folder, prompts=prompts)
        ((example,),) = task.encode(PAIRS[:1], base)
        decoded = [base.processor.decode(text["input_ids"], skip_special_tokens=True) for text in example["texts"]]
        plain = [base.processor.decode(base.processor(before + PAIRS[0][role])["input_ids"], skip_special_tokens=True)
                 for before, role in zip(expected, ("text", "text_pair"), strict=True)]
        assert decoded == plain
    assert base.processor.model_max_length == 48


@pytest.mark.parametrize(("change", "message"), [
    (("modules.json", [{"path": "", "type": "x.WordEmbeddings"}]), "its modules are WordEmbeddings"),
    (("modules.json", [{"path": "", "type": "s.Transformer"}, {"path": "1_Pooling", "type": "s.Pooling"}, {"path": "2_LSTM", "type": "s.LSTM"}]),
     "a module 'LSTM'"),
    (("1_Pooling/config.json", {"pooling_mode": "attention"}), "its pooling is 'attention'"),
    (("1_Pooling/config.json", {"include_prompt": False}), "leaves out the tokens of the prompt"),
    (("2_Dense/config.json", {"activation_function": "mine.Secret"}), "the activation 'mine.Secret'"),
    (("2_Dense/config.json", {"in_features": 5, "out_features": 16, "activation_function": "torch.nn.Tanh"}), "are not as its config.json says"),
])
def test_what_could_not_be_kept_is_refused_by_name(change, message, tiny_model, tmp_path):
    folder = make(tiny_model("bert"), tmp_path / "base", MEAN, 16, {}, "")
    (folder / change[0]).write_text(json.dumps(change[1]))
    with pytest.raises(ModelError, match=message):
        opened(folder)


def test_another_pooling_does_not_fit_a_dense_layer_unless_as_wide(tiny_model, tmp_path):
    folder = make(tiny_model("bert"), tmp_path / "base", {"pooling_mode": ["mean", "max"]}, 0, {}, "")
    dense_layer(folder / "2_Dense", 64, 8)
    listed = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*listed, {"path": "2_Dense", "type": "s.Dense"}]))
    opened(folder)
    with pytest.raises(ModelError, match=r"reads 64 numbers, and cls pooling gives 32"):
        opened(folder, pooling="cls")


def test_a_local_model_in_a_sub_folder_is_known_by_the_hash_of_its_files(tiny_model, tmp_path):
    folder = make(tiny_model("bert"), tmp_path / "base", MEAN, 0, {}, "0_Transformer")
    first = locate(str(folder))
    assert first.subfolder == "0_Transformer"
    assert first.weights == ["model.safetensors"]
    assert first.commit != local_origin(folder / "0_Transformer").commit
    (folder / "modules.json").write_text((folder / "modules.json").read_text() + "\n")
    assert locate(str(folder)).commit != first.commit
