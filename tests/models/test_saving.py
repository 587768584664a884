"""The number format of published weights: rounded before they are scored, saved as such, and proven."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import hubtune
from hubtune.errors import ModelError, RecipeError
from hubtune.models import saving

ROWS = [{"text": f"{'a good day, number' if n % 2 else 'bad'} {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]


@pytest.fixture(scope="module")
def half(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model in bf16."""
    folder = Path(shutil.copytree(tiny_model("bert"), tmp_path_factory.mktemp("half") / "base"))
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("strategy", "dtype"), [("full", "bfloat16"), ("lora", "base"), ("full", "float32")])
def test_the_published_weights_are_those_that_were_scored(strategy: str, dtype: str, half: Path, tmp_path: Path) -> None:
    run = hubtune.train("text-classification", model=half, data=ROWS, strategy=strategy, out=tmp_path / "run",
                        set={"train.max_steps": 3, "publish.dtype": dtype, "train.precision": "fp32"})
    wanted = torch.float32 if dtype == "float32" else torch.bfloat16
    assert {tensor.dtype for tensor in load_file(run.folder / "model/model.safetensors").values()} == {wanted}
    assert json.loads((run.folder / "model/config.json").read_text(encoding="utf-8"))["dtype"] == str(wanted).removeprefix("torch.")
    assert run.record["proof"]["largest_difference"] < 1e-6
    assert run.record["proof"]["asked"]["rows"] > 0
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(run.folder / "model")
    assert plain.dtype == wanted
    card = (run.folder / "model/README.md").read_text(encoding="utf-8")
    assert ("rounded to bfloat16" in card) is (dtype != "float32")
    assert (f'dtype = "{dtype}"' in card) is (dtype != "float32")
    scores = hubtune.load(run.folder / "model").evaluate(ROWS)["metrics"]
    assert scores == run.evaluate(ROWS)["metrics"]
    assert hubtune.verify(run.folder / "model")["proof"]["asked"]["largest_difference"] < 1e-5


def test_rounding_keeps_tied_weights_and_refuses_what_a_format_cannot_hold() -> None:
    config = transformers.GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    model = transformers.GPT2LMHeadModel(config)
    saving.round_weights(model, "bfloat16")
    assert all(torch.equal(tensor, tensor.bfloat16().float()) for tensor in model.parameters())
    cast = saving.cast(model, "bfloat16")
    assert cast["lm_head.weight"] is cast["transformer.wte.weight"]
    model.transformer.ln_f.weight.data[0] = 1e6
    with pytest.raises(ModelError, match=r"transformer\.ln_f\.weight do not fit float16"):
        saving.round_weights(model, "float16")


def test_an_adapter_of_peft_is_not_rounded(half: Path) -> None:
    with pytest.raises(RecipeError, match="'prompt-tuning' is published as an adapter, in float32"):
        hubtune.check("text-classification", model=half, data=ROWS, strategy="prompt-tuning", set={"publish.dtype": "base"})
