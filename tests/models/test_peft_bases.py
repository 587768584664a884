"""A PEFT adapter as a base: it is merged into the model that it was made for, and both are pinned."""

import json
from dataclasses import replace

import pytest
import torch
import transformers

import hubtune
from hubtune.contract import Strategy, registry
from hubtune.errors import HubtuneError, ModelError, Unsafe
from hubtune.hub.adapters import over_base
from hubtune.hub.origin import local_origin, locate
from hubtune.models import configuration, loading
from hubtune.recipe import PluginChoice

peft = pytest.importorskip("peft")
ROWS = [{"text": f"a {'good' if n % 2 else 'bad'} day, number {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]


def adapter_of(base, folder, kind, name, labels=None, **config):
    """A LoRA adapter with random weights over a model, and the model with the adapter merged."""
    torch.manual_seed(0)
    options = {"num_labels": labels} if labels else {}
    model = getattr(transformers, name).from_pretrained(base, **options)
    made = peft.get_peft_model(model, peft.LoraConfig(task_type=kind, target_modules="all-linear", r=2, **config))
    for parameter in made.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    made.save_pretrained(folder)
    return made.merge_and_unload().eval()


def opened(origin, task):
    base = configuration.open_base(origin, task)
    base = configuration.apply_setup(base, task.model_config(task.validate_data({"train": ROWS}), base))
    return loading.load(origin, base, task, Strategy(), seed=0).model.eval(), base


@pytest.mark.parametrize(("model_type", "kind", "name", "labels"), [
    ("bert", "SEQ_CLS", "AutoModelForSequenceClassification", 2),
    ("bert", "FEATURE_EXTRACTION", "AutoModel", None),
    ("llama", "CAUSAL_LM", "AutoModelForCausalLM", None),
    ("roberta", "SEQ_CLS", "AutoModelForSequenceClassification", 3),
])
def test_the_adapter_is_merged_for_another_task_and_a_head_of_as_many_labels_is_kept(model_type, kind, name, labels, tiny_model, tmp_path):
    folder = tiny_model(model_type)
    merged = adapter_of(folder, tmp_path / "adapter", kind, name, labels)
    origin = over_base(local_origin(tmp_path / "adapter"))
    assert origin.adapter is not None
    assert origin.commit == local_origin(folder).commit
    task = registry.load().task(PluginChoice("text-classification"))
    model, base = opened(origin, task)
    inputs = base.processor("a good day", return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(model.base_model(**inputs).last_hidden_state, merged.base_model(**inputs).last_hidden_state, atol=1e-6)
        if labels == 2:
            assert torch.allclose(model(**inputs).logits, merged(**inputs).logits, atol=1e-6)


def test_a_run_pins_both_and_publishes_a_whole_model(hub, tiny_model, tmp_path, logged_in):
    base_commit = hub.add_model("tiny/base-of-adapter", tiny_model("bert"))
    adapter_of(tiny_model("bert"), tmp_path / "adapter", "SEQ_CLS", "AutoModelForSequenceClassification", 2)
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "tiny/base-of-adapter", "revision": None}))
    commit = hub.add_model("tiny/adapter", tmp_path / "adapter")
    run = hubtune.train("text-classification", model="tiny/adapter", data=ROWS, out=tmp_path / "run", set={"train.max_steps": 2})
    said = run.record["base"]
    assert (said["repo"], said["commit"]) == ("tiny/base-of-adapter", base_commit)
    assert said["adapter"] == {"repo": "tiny/adapter", "commit": commit, "local": False}
    done = run.publish("me/from-adapter")
    card = (run.folder / "model" / "README.md")
    assert "tiny/adapter" in (card.read_text() if card.exists() else hubtune.load(done["repo"]).origin.card["base_model"])
    assert len(hubtune.load(done["repo"]).predict(["a good day"])) == 1
    with pytest.raises(HubtuneError, match="published as an adapter over its base model"):
        hubtune.check("text-classification", model="tiny/adapter", data=ROWS, strategy="prompt-tuning", out=tmp_path / "other")


@pytest.mark.parametrize(("change", "kind", "message"), [
    ({"peft_type": "PROMPT_TUNING"}, ModelError, "of the kind PROMPT_TUNING"),
    ({"base_model_name_or_path": None}, ModelError, "that it does not name"),
    ({"base_model_name_or_path": "/home/somebody/model"}, ModelError, "a folder of its author"),
    ({"weights": "adapter_model.bin"}, Unsafe, "without adapter_model.safetensors"),
])
def test_what_cannot_be_merged_is_refused_by_name(change, kind, message, tmp_path):
    weights = change.pop("weights", "adapter_model.safetensors")
    (tmp_path / weights).write_bytes(b"")
    said = {"peft_type": "LORA", "base_model_name_or_path": "org/base", **change}
    (tmp_path / "adapter_config.json").write_text(json.dumps(said))
    with pytest.raises(kind, match=message):
        over_base(local_origin(tmp_path))


def test_other_models_are_their_own_base(tiny_model):
    origin = locate(str(tiny_model("bert")))
    assert over_base(origin) == replace(origin)
