"""The strategy `peft`: methods by name, with their own options, through a whole run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hubtune

pytest.importorskip("peft", reason="PEFT comes with: pip install 'hubtune[peft]'")
ROWS = [{"text": f"{word} number {number}", "label": word} for number in range(6) for word in ("good", "bad")]


def train(model: Path, out: Path, **options: Any) -> Any:
    """Train two steps on the CPU, and verify the saved model in a clean process."""
    settings = {"train.max_steps": 2, "train.precision": "fp32", **{f"strategy.{name}": value for name, value in options.items()}}
    return hubtune.train("text-classification", model=model, data={"train": ROWS, "validation": ROWS}, strategy="peft", out=out, set=settings)


@pytest.mark.filterwarnings("ignore:Unsupported layer type", "ignore:Full backward hook is firing")  # PEFT's and torch's
@pytest.mark.parametrize("options", [
    {"method": "oft", "oft_block_size": 4}, {"method": "ln_tuning"}, {"method": "lora", "init_lora_weights": "pissa"},
    {"method": "lora", "init_lora_weights": "lora_ga"},
], ids=["oft", "ln_tuning", "pissa", "lora_ga"])
def test_a_method_trains_and_its_saved_model_answers_as_it_did(
    options: dict[str, Any], tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    run = train(tiny_model("bert"), tmp_path / "run", **options)
    assert run.record["proof"]["largest_difference"] <= 1e-4
    assert run.record["strategy"]["name"] == "peft"
    assert run.predict(["good number 1"])[0]["label"] in ("good", "bad")


@pytest.mark.parametrize(("options", "expected"), [
    ({"method": "offt"}, "Did you mean 'oft'"), ({"method": "oft", "rank": 4}, "no key strategy.rank"),
    ({"method": "oft", "oft_block_size": "large"}, "strategy.oft_block_size"),
])
def test_a_wrong_method_or_option_is_one_error(
    options: dict[str, Any], expected: str, tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(hubtune.RecipeError, match=expected):
        train(tiny_model("bert"), tmp_path / "run", **options)
