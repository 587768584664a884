"""LoRA on unlike architectures: the head is trained, saved and reloaded, and a new process gives
the same logits."""

from types import SimpleNamespace

import pytest
import torch
from hubtune_plugins.peft.lora import Lora
from hubtune_plugins.text.text_classification import TextClassification
from safetensors.torch import save_file
from transformers import (
    AutoModelForImageClassification,
    DeepseekV3Config,
    DeepseekV3ForSequenceClassification,
)

import hubtune
from hubtune import Plan
from hubtune.data import encoding
from hubtune.evaluation import verification
from hubtune.hub.origin import local_origin
from hubtune.models import configuration, loading, saving
from hubtune.training.optimizers import make_optimizer

TEXT = ("bert", "distilbert", "deberta-v2", "xlnet", "bart", "t5", "modernbert", "gpt2", "llama")
ROWS = [
    {"text": f"the {thing} is {word}", "label": label}
    for thing in ("food", "room", "film", "phone")
    for word, label in (("good", "positive"), ("bad and slow", "negative"))
]


def trained(strategy, model, newly_initialized, task, inputs, targets):
    """Train the wrapped model for a few steps, in which every tensor of its head moves."""
    wrapped = strategy.prepare(model, newly_initialized, task, Plan(6, 1.0, 8))
    head = {name: p for name, p in wrapped.named_parameters() if "modules_to_save.default" in name}
    before = {name: p.detach().clone() for name, p in head.items()}
    assert len(before) == len(newly_initialized)
    optimizer = make_optimizer("adamw", strategy, strategy.param_groups(wrapped, 0.01), 1e-2)
    wrapped.train()
    for _ in range(6):
        torch.nn.functional.cross_entropy(wrapped(**inputs).logits, targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert [name for name, p in head.items() if p.equal(before[name])] == []
    return wrapped.eval()


def seen(model, inputs, place):
    """Inputs and logits of the trained model, as a proof reads them."""
    with torch.no_grad():
        logits = model(**inputs).logits
    save_file(
        {"out.0.logits": logits, **{f"in.0.{name}": value for name, value in inputs.items()}}, place
    )
    return place


def of_text(folder, place):
    task, strategy, origin = TextClassification(), Lora(), local_origin(folder)
    base = configuration.open_base(origin, task)
    base = configuration.apply_setup(
        base, task.model_config(task.validate_data({"train": ROWS}), base)
    )
    loaded = loading.load(origin, base, task, hubtune.Strategy(), seed=0)
    batch = task.collate(encoding.encode(task, ROWS, base, 60).examples, base, None)
    wrapped = trained(
        strategy, loaded.model, loaded.newly_initialized, task, batch.inputs, batch.targets
    )
    witness = seen(wrapped, batch.inputs, place / "seen.safetensors")
    saving.save(strategy.export(wrapped), base, place / "model", origin, {})
    return verification.SavedModel(place / "model", task.model, "transformers", witness)


def of_images(folder, place):
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_pretrained(
        folder, num_labels=3, ignore_mismatched_sizes=True
    )
    newly_initialized = frozenset(
        name for name, _ in model.named_parameters() if name.startswith("classifier.")
    )
    size = model.config.image_size
    inputs = {"pixel_values": torch.randn(6, 3, size, size)}
    strategy = Lora()
    wrapped = trained(
        strategy,
        model,
        newly_initialized,
        SimpleNamespace(model="AutoModelForImageClassification"),
        inputs,
        torch.tensor([0, 1, 2, 0, 1, 2]),
    )
    witness = seen(wrapped, inputs, place / "seen.safetensors")
    strategy.export(wrapped).root.save_pretrained(place / "model")
    return verification.SavedModel(
        place / "model", "AutoModelForImageClassification", "transformers", witness
    )


@pytest.fixture(scope="module")
def reloaded(tiny_model, tmp_path_factory):
    """Of every family: what one fresh process says of the saved model."""
    saved = {}
    for name in (*TEXT, "vit"):
        place = tmp_path_factory.mktemp(name)
        saved[name] = (of_images if name == "vit" else of_text)(tiny_model(name), place)
    return dict(zip(saved, verification.verify_models(list(saved.values())), strict=True))


@pytest.mark.parametrize("model_type", [*TEXT, "vit"])
def test_a_new_process_gives_the_logits_of_the_trained_model(model_type, reloaded):
    found = reloaded[model_type]
    assert isinstance(found, dict), found
    assert found["largest_difference"] <= 1e-5


def test_the_dense_layers_of_a_mixture_of_experts_are_wrapped_and_its_experts_are_not():
    """PEFT takes their names for those that the experts had in transformers 4."""
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 50,
        "intermediate_size": 16,
        **dict.fromkeys(
            ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 4
        ),
    }
    experts = {
        "moe_intermediate_size": 8,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
    }  # the first block has none
    model = DeepseekV3ForSequenceClassification(
        DeepseekV3Config(**sizes, **experts, num_labels=2, pad_token_id=0)
    )
    strategy, newly_initialized = Lora(), frozenset({"score.weight"})
    wrapped = strategy.prepare(
        model,
        newly_initialized,
        SimpleNamespace(model="AutoModelForSequenceClassification"),
        Plan(6, 1.0, 8),
    )
    inside = {
        name.partition(".lora_A")[0].partition("layers.")[2]
        for name, p in wrapped.named_parameters()
        if ".lora_A." in name
    }
    dense = {
        f"{place}.{name}_proj"
        for place in ("0.mlp", "1.mlp.shared_experts")
        for name in ("gate", "up", "down")
    }
    assert dense < inside
    assert not any(".experts" in name for name in inside)
    assert wrapped.config.model_type == "deepseek_v3"
    assert strategy.export(wrapped).beside == {}  # which PEFT alone would not load
