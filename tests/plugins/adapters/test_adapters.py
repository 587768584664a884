"""Adapters: found a place in any architecture, trained alone, and published with the code that puts
them in."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import transformers
from hubtune_plugins.adapters.adapters import AdapterOptions, Adapters
from hubtune_plugins.adapters.structure import places
from hubtune_plugins.text.text_classification import TextClassification

import hubtune
from hubtune import ModelError, Plan, RecipeError
from hubtune.hub import card

PLAN = Plan(8, 1.0, 2)
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
CONFIGS = {
    "mixtral": {
        **SMALL,
        "num_key_value_heads": 1,
        "num_local_experts": 3,
        "vocab_size": 60,
        "pad_token_id": 0,
    },
    "albert": {**SMALL, "embedding_size": 8, "vocab_size": 60},
    "funnel": {
        "d_model": 16,
        "n_head": 2,
        "d_head": 8,
        "d_inner": 32,
        "block_sizes": [1, 1],
        "vocab_size": 60,
    },
    "vit": {**SMALL, "image_size": 16, "patch_size": 8},
    "swin": {
        "image_size": 32,
        "patch_size": 4,
        "embed_dim": 8,
        "depths": [1, 2],
        "num_heads": [1, 2],
        "window_size": 4,
    },
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "patch_size": 2},
    "resnet": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 2],
        "layer_type": "bottleneck",
    },
    "wav2vec2": {
        **SMALL,
        "conv_dim": [8, 8],
        "conv_kernel": [3, 3],
        "conv_stride": [2, 2],
        "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
        "mask_time_prob": 0.0,
    },
}
TINY = (
    "bert",
    "distilbert",
    "roberta",
    "deberta-v2",
    "xlnet",
    "bart",
    "t5",
    "modernbert",
    "gpt2",
    "llama",
)
PLACES = {  # of the first block, and of how many blocks
    "bert": ("bert.encoder.layer.0", ["attention.output.dense", "output.dense"], 2),
    "distilbert": ("distilbert.transformer.layer.0", ["attention.out_lin", "ffn.lin2"], 2),
    "deberta-v2": ("deberta.encoder.layer.0", ["attention.output.dense", "output.dense"], 2),
    "xlnet": ("transformer.layer.0", ["ff.layer_2"], 2),  # its attention has no linear layers
    "bart": ("model.decoder.layers.0", ["self_attn.out_proj", "encoder_attn.out_proj", "fc2"], 4),
    "t5": (
        "transformer.decoder.block.0",
        ["layer.0.SelfAttention.o", "layer.1.EncDecAttention.o", "layer.2.DenseReluDense.wo"],
        4,
    ),
    "modernbert": ("model.layers.0", ["attn.Wo", "mlp.Wo"], 2),
    "gpt2": ("transformer.h.0", ["attn.c_proj", "mlp.c_proj"], 2),
    "llama": ("model.layers.0", ["self_attn.o_proj", "mlp.down_proj"], 2),
    "mixtral": ("model.layers.0", ["self_attn.o_proj", "mlp"], 2),
    "albert": (
        "albert.encoder.albert_layer_groups.0.albert_layers.0",
        ["attention.dense", "ffn_output"],
        1,
    ),
    "funnel": ("funnel.encoder.blocks.0.0", ["attention.post_proj", "ffn.linear_2"], 2),
    "swin": ("swin.encoder.layers.1.blocks.1", ["attention.o_proj", "mlp.fc2"], 3),
    "convnext": ("convnext.encoder.stages.0.layers.0", ["pwconv2"], 2),
    "resnet": ("resnet.encoder.stages.1.layers.1", ["layer.2.convolution"], 3),
    "wav2vec2": (
        "wav2vec2.encoder.layers.0",
        ["attention.out_proj", "feed_forward.output_dense"],
        2,
    ),
}


def asked(model_type):
    """Make the part of a task that the strategy reads."""
    kind = {
        "wav2vec2": "Audio",
        "vit": "Image",
        "swin": "Image",
        "convnext": "Image",
        "resnet": "Image",
    }
    return SimpleNamespace(model=f"AutoModelFor{kind.get(model_type, 'Sequence')}Classification")


@pytest.fixture(scope="module")
def tiny(tiny_model):
    """tiny("bert"): a classifier in evaluation mode, its fresh parameters, and inputs for it."""
    def build(model_type):
        auto = getattr(transformers, asked(model_type).model)
        torch.manual_seed(0)
        if model_type in CONFIGS:
            config = transformers.AutoConfig.for_model(
                model_type, num_labels=3, **CONFIGS[model_type]
            )
            model = auto.from_config(config)
        else:
            model = auto.from_pretrained(tiny_model(model_type), num_labels=3, pad_token_id=0)
        config, prefix = model.config, f"{model.base_model_prefix}."
        newly_initialized = frozenset(
            name for name, _ in model.named_parameters() if not name.startswith(prefix)
        )
        if "Sequence" in auto.__name__:
            ids = torch.arange(6, 24).view(2, 9)
            if config.is_encoder_decoder:
                ids[:, -1] = config.eos_token_id
            return (
                model.eval(),
                newly_initialized,
                {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
            )
        if model_type == "wav2vec2":
            return model.eval(), newly_initialized, {"input_values": torch.randn(2, 200)}
        size = getattr(config, "image_size", 32)
        return model.eval(), newly_initialized, {"pixel_values": torch.randn(2, 3, size, size)}

    return build


def answer(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def learnt(model, inputs, steps=3):
    """Three steps in training mode, without the noise of it."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(**inputs).logits, torch.tensor([0, 2])).backward()
        optimizer.step()


@pytest.mark.parametrize("model_type", PLACES)
def test_adapters_follow_what_writes_to_the_residual_stream(model_type, tiny):
    block, parts, count = PLACES[model_type]
    model, newly_initialized, _ = tiny(model_type)
    both = dict(places(model, newly_initialized, every=True))
    assert [name for name in both if name.startswith(f"{block}.")] == [
        f"{block}.{place}" for place in parts
    ]
    last = dict(places(model, newly_initialized, every=False))
    assert [name for name in last if name.startswith(f"{block}.")] == [f"{block}.{parts[-1]}"]
    assert len(last) == count


def test_what_is_trained_is_what_a_fresh_process_loads_with_transformers_alone(tiny, tmp_path):
    """Every architecture begins as it was, only adapters and head learn, and all is saved.

    One process reloads all.
    """
    expected = {}
    for model_type in (*TINY, *CONFIGS):
        model, newly_initialized, inputs = tiny(model_type)
        task, strategy = asked(model_type), Adapters(AdapterOptions(variant="houlsby", reduction=4))
        before = answer(model, inputs)
        frozen = {
            id(p): p.detach().clone()
            for name, p in model.named_parameters()
            if name not in newly_initialized
        }
        model = strategy.prepare(model, newly_initialized, task, PLAN)
        assert torch.allclose(answer(model, inputs), before, atol=1e-6), model_type
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        learnt(model, inputs)
        for name, parameter in model.named_parameters():
            if id(parameter) in frozen:
                assert torch.equal(parameter, frozen[id(parameter)]), (model_type, name)
            else:
                assert name in newly_initialized or ".adapter." in name
                assert not torch.equal(parameter, start[name]), (model_type, name)
        after = answer(model, inputs)
        export = strategy.export(model)
        folder = tmp_path / model_type
        export.root.save_pretrained(folder)
        for name, text in export.files.items():
            (folder / name).write_text(text)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **export.config}))
        assert export.loads_with == strategy.loads_with == "code"
        expected[model_type] = (after, task.model)
        torch.save({"inputs": inputs, "auto": task.model}, folder / "inputs.pt")
    again = replayed(tmp_path, list(expected))
    for model_type, (after, _) in expected.items():
        said = again[model_type]
        assert torch.allclose(torch.tensor(said["logits"]), after, atol=1e-6), model_type
        assert said["missing"] == said["unexpected"] == 0, model_type
        assert said["without_code"] > 0, (
            model_type
        )  # who does not trust the code is told that weights are missing
        assert said["labels"] == 3
        assert said["from_config"], (
            f"{model_type}: transformers {transformers.__version__} makes a model of a configuration "
            "in another way: mend Adapted._from_config"
        )


REPLAY = """
import json, sys
sys.modules["hubtune"] = sys.modules["hubtune_plugins.adapters"] = None
import torch, transformers
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
place, said = sys.argv[1], {}
for name in sys.argv[2:]:
    folder = f"{place}/{name}"
    saved = torch.load(f"{folder}/inputs.pt")
    auto = getattr(transformers, saved["auto"])
    load = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    model, report = auto.from_pretrained(folder, trust_remote_code=True, **load)
    untrained = auto.from_config(model.config, trust_remote_code=True, dtype=torch.float64)
    plain, without = auto.from_pretrained(folder, trust_remote_code=False, **load)
    with torch.no_grad():
        logits = model.eval()(**saved["inputs"]).logits.tolist()
    said[name] = {"logits": logits, "missing": len(report["missing_keys"]),
                  "unexpected": len(report["unexpected_keys"]),
                  "from_config": untrained.dtype == torch.float64
                  and untrained.state_dict().keys() == model.state_dict().keys(),
                  "without_code": len(without["missing_keys"]), "labels": model.config.num_labels}
print(json.dumps(said))
"""


def replayed(place, names):
    """Run saved models in a clean process, with transformers and without hubtune."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", REPLAY, str(place), *names],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_options_decide_the_bottleneck(tiny):
    model, newly_initialized, inputs = tiny("bert")
    strategy = Adapters(AdapterOptions(reduction=8, nonlinearity="relu", dropout=0.25))
    strategy.prepare(model, newly_initialized, asked("bert"), PLAN)
    adapter = model.bert.encoder.layer[1].output.dense.adapter
    assert adapter.down.weight.shape == (4, 32)
    assert adapter.up.weight.shape == (32, 4)
    assert isinstance(adapter.activation, torch.nn.ReLU)
    assert adapter.dropout.p == 0.25
    assert not adapter.up.weight.any()
    assert answer(model, inputs).shape == (2, 3)
    assert "strategy.reduction is 0" in Adapters(AdapterOptions(reduction=0)).refuse(
        asked("bert"), None
    )


def test_a_model_without_blocks_is_refused_with_what_to_do():
    plain = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    with pytest.raises(ModelError, match="adapter could follow") as refused:
        Adapters().prepare(plain, frozenset(), asked("bert"), PLAN)
    assert "--strategy full" in refused.value.hint


def test_the_card_s_snippet_names_a_commit_and_trusts_the_code(monkeypatch):
    monkeypatch.setattr(TextClassification, "label_kind", lambda task: "single_label")
    usage = Adapters().usage(TextClassification(), card.PLACE, None)
    text = card.snippet({"usage": usage, "loads_with": "code"}, "me/model")
    compile(text, "snippet", "exec")
    assert 'model="me/model", revision=COMMIT, trust_remote_code=True)' in text
    assert text.index("COMMIT = ") < text.index("revision=COMMIT")


ROWS = [
    {"text": f"a {word} day, number {n}", "label": word} for n in range(16) for word in ("good", "bad")
]
WORDS = [
    {"tokens": ["Ada", "met", "Bob", f"place{n}"], "tags": ["B-PER", "O", "B-PER", "O"]}
    for n in range(12)
]


@pytest.fixture(scope="module")
def tuned(tiny_model, tmp_path_factory):
    """A finished run of the strategy."""
    folder = tmp_path_factory.mktemp("adapters") / "run"
    return hubtune.train(
        "text-classification", model=tiny_model("deberta-v2"), data=ROWS, strategy="adapters",
        set={"train.max_steps": 8, "train.batch_size": 4}, out=folder)


def test_a_run_is_proven_and_predicts(tuned):
    assert tuned.record["proof"]["largest_difference"] <= tuned.record["proof"]["tolerance"]
    assert tuned.predict(["a good day"])[0]["label"] in ("good", "bad")
    folder = tuned.folder / "model"
    pipe = transformers.pipeline(
        "text-classification", model=str(folder), trust_remote_code=True, top_k=None
    )
    found = {one["label"]: one["score"] for one in pipe("a good day")[0]}
    assert found == pytest.approx(tuned.predict(["a good day"])[0]["probabilities"], abs=1e-5)


@pytest.fixture
def published(tuned, tmp_path):
    """Its published files, with code that would fail if it ran."""
    folder = tmp_path / "published"
    shutil.copytree(tuned.folder / "model", folder)
    (folder / "modeling_hubtune_adapters.py").write_text("raise RuntimeError('it ran')\n")
    return folder


def adapter_weights(folder):
    """Read the adapters' tensors of a saved model."""
    from safetensors.torch import load_file

    return {name: tensor for name, tensor in load_file(folder / "model.safetensors").items()
            if ".adapter." in name}


def test_a_published_model_is_read_without_the_code_beside_it(tuned, published):
    model = hubtune.load(published)
    assert model.predict(["a good day"]) == tuned.predict(["a good day"])
    assert model.evaluate(ROWS)["rows"] == 32
    with pytest.raises(ModelError, match="runs only if you name it"):
        hubtune.verify(tuned_with_changed_code(tuned, published.parent))
    assert hubtune.verify(tuned.folder)["proof"]["asked"]["rows"] > 0


def tuned_with_changed_code(tuned, place):
    """Copy a run, with code that is not ours beside its weights."""
    folder = shutil.copytree(tuned.folder, place / "changed")
    code = folder / "model" / "modeling_hubtune_adapters.py"
    code.write_text(code.read_text() + "\n# other\n")
    return folder


@pytest.mark.parametrize(
    ("strategy", "learns"), [("full", True), ("lora", True), ("head", False), ("adapters", True)]
)
def test_a_published_model_is_tuned_further(strategy, learns, published, tmp_path):
    """The adapters stay, learn where the strategy trains them, and are proven with the code."""
    run = hubtune.train(
        "text-classification", model=published, data=ROWS, strategy=strategy, out=tmp_path / "run",
        set={"train.max_steps": 2, "train.batch_size": 4})
    assert run.record["loads_with"] == "code"
    assert run.record["proof"]["largest_difference"] < 1e-5
    before, after = adapter_weights(published), adapter_weights(run.folder / "model")
    assert before.keys() == after.keys()
    assert len(after) == 8
    assert any(not torch.equal(before[name], after[name]) for name in before) is learns
    assert hubtune.load(run.folder / "model").predict(["a day"]) == run.predict(["a day"])


def test_a_published_model_is_tuned_for_another_class(published, tmp_path):
    """A class whose names of the same layers have no prefix, and one of tokens."""
    run = hubtune.train("token-classification", model=published, data=WORDS, out=tmp_path / "tags",
                        set={"train.max_steps": 2})
    assert run.record["proof"]["largest_difference"] < 1e-5
    pairs = [{"text": f"a day, number {n}", "positive": f"a bad day {n}"} for n in range(12)]
    run = hubtune.train("sentence-similarity", model=published, data=pairs, out=tmp_path / "vectors",
                        set={"train.max_steps": 2, "train.verify": False})
    config = json.loads((run.folder / "model" / "config.json").read_text())
    assert config["hubtune_adapters"]["model"] == "DebertaV2Model"
    assert "encoder.layer.0.output.dense" in config["hubtune_adapters"]["layers"]


def test_what_cannot_be_put_on_a_model_with_adapters_is_refused(published, tmp_path):
    with pytest.raises(RecipeError, match="which PEFT does not run"):
        hubtune.check("text-classification", model=published, data=ROWS, strategy="prefix-tuning")
    with pytest.raises(ModelError, match="the model has adapters already"):
        hubtune.check("text-classification", model=published, data=ROWS, strategy="adapters",
                      set={"strategy.reduction": 4})
    other = json.loads((published / "config.json").read_text())
    other["hubtune_adapters"]["layers"] = {"deberta.encoder.layer.9.output.dense": [32, 2]}
    (published / "config.json").write_text(json.dumps(other))
    with pytest.raises(ModelError, match="which DebertaV2ForSequenceClassification does not have"):
        hubtune.check("text-classification", model=published, data=ROWS)
