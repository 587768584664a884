"""Limits of a model's own code are found before step 0, and reported as one error."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from toy import gradients

import hubtune
from hubtune import Base, Batch
from hubtune.callbacks import Callbacks
from hubtune.contract import registry
from hubtune.data.dataset import EncodedDataset
from hubtune.devices import device, fp64
from hubtune.errors import ModelError
from hubtune.evaluation import equivalence, model_checks
from hubtune.models import compat, loading
from hubtune.recipe import PluginChoice, build
from hubtune.runs import preparation, stages

ROWS = [{"text": "good day " * (1 + 3 * n) if n % 2 else "bad " * (1 + 4 * n), "label": "yes" if n % 2 else "no"} for n in range(8)]
SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
DECODER: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


@pytest.fixture
def made(tiny_model: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """made("Deberta", like="bert"): a model of weights that show what is wrong, with the tokenizer of one of the kit's."""

    def of(name: str, like: str, head: str = "Model", **sizes: Any) -> Path:
        folder = tmp_path / name
        shutil.copytree(tiny_model(like), folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
        words = len(transformers.AutoTokenizer.from_pretrained(folder))
        config = getattr(transformers, f"{name}Config")(vocab_size=words, initializer_range=0.2, **sizes)
        torch.manual_seed(0)
        getattr(transformers, f"{name}{head}")(config).save_pretrained(folder)
        return folder

    return of


def refusal(folder: Path, out: Path, **settings: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        hubtune.train("text-classification", model=folder, data=ROWS, out=out, set={"train.max_steps": 1, **settings})
    return caught.value


def test_a_model_that_fails_in_half_precision_is_computed_in_fp32(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DeBERTa hides places with fp32's least number, which bf16 does not have."""
    folder = made("Deberta", "bert", relative_attention=True, pos_att_type=["c2p", "p2c"], **SIZES)
    error = refusal(folder, tmp_path / "asked", **{"train.precision": "bf16"})
    assert error.message.startswith("it does not compute in bf16: its code fails with RuntimeError: value cannot be converted")
    assert error.hint == "Leave train.precision at auto."
    chosen = device.choose
    monkeypatch.setattr(device, "choose", lambda *given: replace(chosen("fp32"), precision="bf16"))
    run = hubtune.train("text-classification", model=folder, data=ROWS, out=tmp_path / "run", set={"train.max_steps": 1, "train.verify": False})
    assert run.record["compute"]["precision"] == "fp32"
    assert run.record["compute"]["why"].startswith("not bf16: its code fails with RuntimeError")


def test_a_model_that_needs_other_inputs_is_refused_in_one_block(made: Any, tmp_path: Path) -> None:
    """BROS reads where words stand on a page."""
    rows = [{"tokens": ["Ann", "sat"], "tags": ["B-name", "O"]}, {"tokens": ["Bo"], "tags": ["B-name"]}] * 4
    folder = made("Bros", "bert", **SIZES)
    with pytest.raises(ModelError, match="the code of 'bros' models fails on the examples of 'token-classification': ValueError: You have to "
                       "specify bbox") as caught:
        hubtune.train("token-classification", model=folder, data=rows, out=tmp_path / "run", set={"train.max_steps": 1})
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("error", [KeyError("x"), ModelError("no"), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_errors_of_plugins_pass_through(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, model_checks.model_errors(SimpleNamespace(name="a"), SimpleNamespace(repo="b")):  # type: ignore[arg-type]
        raise error
    assert caught.value is error


@pytest.mark.parametrize(("name", "sizes"), [
    ("Gemma2", {"sliding_window": 4, "query_pre_attn_scalar": 8}),  # takes scores into fp32: padding beyond the window was no number
    ("Mixtral", {"num_local_experts": 3, "num_experts_per_tok": 2}),  # multiplies its experts together, which torch cannot in fp64
])
def test_in_fp64_a_step_has_one_gradient_however_it_is_cut(name: str, sizes: dict[str, Any], made: Any, tmp_path: Path) -> None:
    recipe = build({"task": {"name": "text-classification"}, "model": {"id": str(made(name, "llama", "ForCausalLM", **DECODER, **sizes))},
                    "train": {"precision": "fp64", "batch_size": 8}, "data": {}, "strategy": {}, "publish": {}})
    prepared, _ = preparation.prepare(recipe, Callbacks(), {"train": ROWS, "validation": ROWS})
    _, work = stages.load_model(tmp_path, prepared, device.choose("fp64"), resume=False)
    assert not work.compute.uniform
    means, whole = gradients(work, [[*range(8)]])
    work.model.zero_grad()
    again, parts = gradients(work, [[item] for item in range(8)])
    assert again == pytest.approx(means, rel=1e-12)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_fp64_stays_fp64_for_a_while() -> None:
    scores = torch.tensor([[torch.finfo(torch.float64).min, torch.finfo(torch.float64).min]], dtype=torch.float64)
    assert torch.nn.functional.softmax(scores, -1, dtype=torch.float32).isnan().all()
    with fp64.fp64_everywhere():
        assert torch.nn.functional.softmax(scores, -1, dtype=torch.float32).tolist() == [[0.5, 0.5]]
        assert {made.dtype for made in (torch.ones(1), torch.ones(1).float(), torch.ones(1).to(torch.float32))} == {torch.float64}
        assert torch.ones(1, dtype=torch.float16).dtype == torch.float16
    assert torch.ones(1).dtype == torch.float32


class Window:
    """Answers with what it sees of a text of more than five tokens: all that stands in the batch."""

    def collate(self, examples: Any, base: Any, rngs: Any) -> Batch:
        return Batch({"sizes": torch.tensor(examples)}, None, len(examples))

    def forward(self, model: Any, batch: Batch) -> Any:
        sizes = batch.inputs["sizes"]
        return torch.where(sizes > 5, sizes.max(), sizes)

    def postprocess(self, outputs: Any, batch: Batch, base: Any) -> Any:
        return [{"seen": value} for value in outputs.tolist()]


@pytest.mark.parametrize(("sizes", "matters"), [([1, 2, 3, 4, 5], False), ([1, 2, 7, 8, 9], True), ([1, 1, 9, 9], False), ([7], False)])
def test_texts_of_all_lengths_tell_whether_predictions_depend_on_padding(sizes: list[int], matters: bool) -> None:
    """Where a model's attention is narrow, only those longer than that show it."""
    encoded = EncodedDataset(sizes, np.arange(len(sizes)), np.array(sizes), len(sizes))
    assert model_checks.depends_on_padding(torch.nn.Linear(1, 1), Window(), None, encoded) is matters  # type: ignore[arg-type]


def test_nan_differs_from_a_number_and_not_from_nan() -> None:
    assert equivalence.relative_difference([1.0, math.nan], [1.0, 2.0]) == math.inf
    assert equivalence.relative_difference([1.0, math.nan], [1.0, math.nan]) == 0.0


def test_a_backbone_that_a_class_calls_otherwise_keeps_its_weights(tiny_model: Any, tmp_path: Path) -> None:
    """Llama's class for question answering says `transformer` for what its checkpoints call `model`."""
    rows = [{"question": "Who?", "context": f"Then {name} sat.", "answers": name} for name in ("Ann", "Bo", "Cy", "Di")] * 2
    found = hubtune.train("question-answering", model=tiny_model("llama"), data={"train": rows, "validation": rows}, out=tmp_path / "run",
                          set={"train.max_steps": 1, "train.learning_rate": 1e-30})
    assert found.record["proof"]["largest_difference"] == 0.0
    trained = dict(found.load_weights()[0].named_parameters())
    for name, value in transformers.AutoModel.from_pretrained(tiny_model("llama")).named_parameters():
        assert torch.equal(trained[f"transformer.{name}"], value), name


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("learning", [True, False])
def test_a_batch_norm_of_one_image_has_its_gradient(rows: int, learning: bool) -> None:
    """The sum over all places, also where these become tokens: torch gives another for one image alone."""
    norm = torch.nn.BatchNorm2d(4).double().train(learning)
    compat.correct_batch_norm_gradients(norm)
    weights = torch.randn(rows, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images = torch.arange(rows * 36.0, dtype=torch.float64).view(rows, 4, 3, 3).requires_grad_()
    (norm(images).flatten(2).transpose(1, 2) * weights).sum().backward()
    torch.testing.assert_close(norm.bias.grad, weights.sum((0, 1)))


def test_a_step_keeps_nothing_for_a_next_token(tiny_model: Any) -> None:
    """Some models change what they keep in place, and then have no gradient; and all of it is work for nothing."""
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model("llama")).train()
    ids = torch.ones(1, 3, dtype=torch.int64)
    with compat.without_cache(model):
        assert model(input_ids=ids).past_key_values is None
    assert model(input_ids=ids).past_key_values is not None


def test_a_class_that_takes_a_part_of_a_model_is_refused_since_it_would_not_load_again() -> None:
    """Mllama's for text is made of the whole model's configuration, and saves that of the text."""
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64,
            "vocab_size": 60, "cross_attention_layers": [], "pad_token_id": 2}
    task = registry.load().task(PluginChoice("text-generation"))
    with pytest.raises(ModelError, match="the class for 'text-generation' uses only its part 'mllama_text_model'"):
        loading.meta_model(Base("a", "b", transformers.MllamaConfig(text_config=text), None), task)
