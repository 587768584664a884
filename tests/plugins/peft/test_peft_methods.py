"""The strategy `peft`: methods by name, with their own options, through a whole run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hubtune

pytest.importorskip("peft", reason="PEFT comes with: pip install 'hubtune[peft]'")
ROWS = [
    {"text": f"{word} number {number}", "label": word}
    for number in range(6)
    for word in ("good", "bad")
]


def train(model: Path, out: Path, **options: Any) -> Any:
    """Train two steps on the CPU, and verify the saved model in a clean process."""
    settings = {
        "train.max_steps": 2,
        "train.precision": "fp32",
        **{f"strategy.{name}": value for name, value in options.items()},
    }
    return hubtune.train(
        "text-classification",
        model=model,
        data={"train": ROWS, "validation": ROWS},
        strategy="peft",
        out=out,
        set=settings,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"method": "oft", "oft_block_size": 4},
        {"method": "ln_tuning"},
        {"method": "lora", "init_lora_weights": "pissa"},
        {"method": "lora", "init_lora_weights": "lora_ga"},
        {"method": "lora", "init_lora_weights": "eva", "r": 64},
    ],
    ids=["oft", "ln_tuning", "pissa", "lora_ga", "eva"],
)
def test_a_method_trains_and_its_saved_model_answers_as_it_did(
    options: dict[str, Any], tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    run = train(tiny_model("bert"), tmp_path / "run", **options)
    assert run.record["proof"]["largest_difference"] <= 1e-4
    assert run.record["strategy"]["name"] == "peft"
    assert run.predict(["good number 1"])[0]["label"] in ("good", "bad")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"method": "offt"}, "Did you mean 'oft'"),
        ({"method": "oft", "rank": 4}, "no key strategy.rank"),
        ({"method": "oft", "oft_block_size": "large"}, "strategy.oft_block_size"),
    ],
)
def test_a_wrong_method_or_option_is_one_error(
    options: dict[str, Any], expected: str, tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(hubtune.RecipeError, match=expected):
        train(tiny_model("bert"), tmp_path / "run", **options)


def test_the_start_by_gradients_leaves_statistics_of_batch_norms_alone() -> None:
    """In training mode, its passes over batches would add to them."""
    from types import SimpleNamespace

    import torch
    from hubtune_plugins.peft.lora import start_from_gradients
    from peft import LoraConfig
    from peft.tuners.lora.config import LoraGAConfig

    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8))
    config = LoraConfig(
        target_modules=["0"], init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig(), r=64
    )
    batch = hubtune.Batch({"x": torch.randn(4, 8)}, None, 4, {"loss": 4})
    task = SimpleNamespace(forward=lambda model, batch: model(batch.inputs["x"]),
                           loss=lambda outputs, batch: hubtune.Loss(outputs.square().sum()))
    before = model[1].running_mean.clone()
    start_from_gradients(model, config, task, hubtune.Plan(1, 1.0, 4, lambda: [batch]))
    assert model[1].running_mean.equal(before)
    assert config.rank_pattern == {"0": 4}  # it takes singular vectors for twice the rank


# PEFT's shadow calls transformers' blocks by an argument's old name.
SHADOW = pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")


@SHADOW
@pytest.mark.parametrize("method", ["shadow", "cpt"])
def test_a_method_that_cannot_be_merged_is_published_as_an_adapter(
    method: str, tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [{"text": row["text"]} for row in ROWS]
    run = hubtune.train(
        "text-generation",
        model=tiny_model("llama"),
        data={"train": rows, "validation": rows},
        strategy="peft",
        out=tmp_path / "run",
        set={"train.max_steps": 2, "train.precision": "fp32", "strategy.method": method},
    )
    assert run.record["loads_with"] == "peft"
    assert run.record["proof"]["largest_difference"] <= 1e-4


@SHADOW
def test_blocks_that_a_method_cannot_run_are_an_error_before_training(
    tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [{"source": row["text"], "target": row["label"]} for row in ROWS]
    with pytest.raises(
        hubtune.ModelError, match="PEFT's shadow cannot run blocks of this architecture"
    ):
        hubtune.train(
            "text2text-generation",
            model=tiny_model("bart"),
            data={"train": rows, "validation": rows},
            strategy="peft",
            out=tmp_path / "run",
            set={"train.max_steps": 2, "strategy.method": "shadow"},
        )


def test_a_missing_package_of_a_start_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from hubtune_plugins.peft.methods import Peft

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(hubtune.MissingExtra, match="pip install attrs"):
        Peft.for_options({"method": "lora", "init_lora_weights": "corda"})


def test_a_method_of_one_task_type_alone_is_refused_for_others(
    tiny_model: Callable[..., Path],
) -> None:
    from hubtune_plugins.peft.methods import Peft
    from hubtune_plugins.text.text_classification import TextClassification
    from transformers import AutoConfig

    kind = Peft.for_options({"method": "cpt"})
    reason = kind(kind.Options(method="cpt")).refuse(
        TextClassification(), AutoConfig.from_pretrained(tiny_model("bert"))
    )
    assert "CPTConfig only supports task_type = CAUSAL_LM" in str(reason)
