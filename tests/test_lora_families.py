"""LoRA on unlike architectures: the head is trained, saved and reloaded, and a new process gives the same logits."""

from types import SimpleNamespace

import pytest
import torch
from hubtune_peft.lora import Lora
from hubtune_text.text_classification import TextClassification
from safetensors.torch import save_file
from transformers import AutoModelForImageClassification

import hubtune
from hubtune import Plan, encoding, models, proof
from hubtune.origin import in_folder

TEXT = ("bert", "distilbert", "deberta-v2", "xlnet", "bart", "t5", "modernbert", "gpt2", "llama")
ROWS = [{"text": f"the {thing} is {word}", "label": label} for thing in ("food", "room", "film", "phone")
        for word, label in (("good", "positive"), ("bad and slow", "negative"))]


def trained(strategy, model, fresh, task, inputs, targets):
    """The wrapped model after a few steps; every tensor of its head has moved."""
    wrapped = strategy.prepare(model, fresh, task, Plan(6, 1.0, 8))
    head = {name: p for name, p in wrapped.named_parameters() if "modules_to_save.default" in name}
    before = {name: p.detach().clone() for name, p in head.items()}
    assert len(before) == len(fresh)
    optimizer = strategy.optimizer(strategy.groups(wrapped, 0.01), 1e-2)
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
    save_file({"out.0.logits": logits, **{f"in.0.{name}": value for name, value in inputs.items()}}, place)
    return place


def of_text(folder, place):
    task, strategy, origin = TextClassification(), Lora(), in_folder(folder)
    base = models.open_base(origin, task)
    base = models.configured(base, task.configure(task.inspect({"train": ROWS}), base))
    loaded = models.load(origin, base, task, hubtune.Strategy(), seed=0)
    batch = task.collate(encoding.encode(task, ROWS, base, 60).examples, base, None)
    wrapped = trained(strategy, loaded.model, loaded.fresh, task, batch.inputs, batch.targets)
    witness = seen(wrapped, batch.inputs, place / "seen.safetensors")
    models.save(strategy.export(wrapped), base, place / "model", origin, {})
    return proof.Saved(place / "model", task.model, "transformers", witness)


def of_images(folder, place):
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_pretrained(folder, num_labels=3, ignore_mismatched_sizes=True)
    fresh = frozenset(name for name, _ in model.named_parameters() if name.startswith("classifier."))
    size = model.config.image_size
    inputs = {"pixel_values": torch.randn(6, 3, size, size)}
    strategy = Lora()
    wrapped = trained(strategy, model, fresh, SimpleNamespace(model="AutoModelForImageClassification"), inputs,
                      torch.tensor([0, 1, 2, 0, 1, 2]))
    witness = seen(wrapped, inputs, place / "seen.safetensors")
    strategy.export(wrapped).root.save_pretrained(place / "model")
    return proof.Saved(place / "model", "AutoModelForImageClassification", "transformers", witness)


@pytest.fixture(scope="module")
def reloaded(tiny_model, tmp_path_factory):
    """Of every family: what one fresh process says of the saved model."""
    saved = {}
    for name in (*TEXT, "vit"):
        place = tmp_path_factory.mktemp(name)
        saved[name] = (of_images if name == "vit" else of_text)(tiny_model(name), place)
    return dict(zip(saved, proof.check_all(list(saved.values())), strict=True))


@pytest.mark.parametrize("model_type", [*TEXT, "vit"])
def test_a_new_process_gives_the_logits_of_the_trained_model(model_type, reloaded):
    found = reloaded[model_type]
    assert isinstance(found, dict), found
    assert found["largest_difference"] <= 1e-5
