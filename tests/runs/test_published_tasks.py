"""Tasks whose answers are of several texts: trained, proven, published and verified from the Hub, answers and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, snapshot_download
from safetensors.torch import load_file, save_file

import hubtune
from hubtune.errors import ProofError

CHOICES = [{"question": f"Which is {n}?", "choices": [f"it is {n}", "none", "a kettle"][: 2 + n % 2], "label": 0} for n in range(40)]
PAIRS = [{"prompt": f"Is {n} good?", "chosen": f"Yes, {n} is good.", "rejected": "Soup."} for n in range(40)]
CASES = {"multiple-choice": ("bert", CHOICES), "reward-model": ("llama", PAIRS)}


@pytest.mark.parametrize("task", CASES)
def test_a_published_model_is_proven_and_verified(task: str, tiny_model: Any, tmp_path: Path, logged_in: Any) -> None:
    family, rows = CASES[task]
    run = hubtune.train(task, model=tiny_model(family), data=rows, out=tmp_path / "run", set={"train.max_steps": 4})
    assert run.record["proof"]["asked"]["rows"] == 4
    done = run.publish(f"me/{task}")
    assert HfApi().model_info(f"me/{task}").sha == done["commit"]
    found = hubtune.verify(f"me/{task}@{done['commit']}")
    assert found["sealed"]
    assert found["proof"]["asked"]["rows"] == 2
    assert found["proof"]["asked"]["largest_difference"] <= 1e-4
    asked = [{name: value for name, value in row.items() if name != "label"} for row in rows[:4]]
    assert hubtune.load(f"me/{task}").predict(asked) == run.predict(asked)
    other = Path(snapshot_download(f"me/{task}", local_dir=tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    save_file({name: value + 0.5 for name, value in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ProofError, match=r"model\.safetensors: changed"):
        hubtune.verify(other)
