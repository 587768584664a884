"""QLoRA on this machine, with or without a GPU: what it trains in 4 bits is published in plain
weights."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hubtune_plugins.peft.qlora import QLora

from hubtune.testing import StrategyConformance

bitsandbytes = pytest.importorskip(
    "bitsandbytes", reason="4-bit weights come with: pip install 'hubtune[qlora]'")


class TestQLora(StrategyConformance):
    plugin = QLora
    model = "bert"

    def test_its_layers_are_in_4_bits_while_it_trains_and_plain_when_published(self) -> None:
        loaded = self.bench().fresh_model(self.made()).model
        kinds = {name: type(part).__name__ for name, part in loaded.named_modules()
                 if isinstance(part, torch.nn.Linear)}
        assert {name for name, kind in kinds.items() if kind != "Linear4bit"} == {"classifier"}
        folder = self.trained().folder / "model"
        assert "quantization_config" not in json.loads(
            (folder / "config.json").read_text(encoding="utf-8")
        )


class TestQLoraOfADecoder(StrategyConformance):
    plugin = QLora
    model = "llama"


def test_evaluation_leaves_4_bit_weights_as_they_are(tiny_model: Any) -> None:
    """On CPUs with AVX-512 bf16, bitsandbytes would pack them anew, which is not undone exactly."""
    from hubtune_plugins.text.text_classification import TextClassification

    from hubtune.testing.bench import Bench
    from hubtune.testing.fixtures import fixture_for

    task = TextClassification()
    bench = Bench(task, tiny_model("bert"), fixture_for(task).sample(task, 8))
    model = bench.fresh_model(QLora()).model.eval()
    layers = [part for part in model.modules() if type(part).__name__ == "Linear4bit"]
    before = [layer.weight.detach().clone() for layer in layers]
    with torch.no_grad():
        task.forward(model, bench.batch(bench.whole[:4], model))
    assert layers
    assert [old.equal(layer.weight) for old, layer in zip(before, layers)] == [True] * len(layers)
