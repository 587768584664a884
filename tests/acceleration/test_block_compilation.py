"""Compiled blocks give what plain ones give, while a step is computed and not beside it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import hubtune
from hubtune.acceleration import block_compilation

ROWS = [{"text": "word " * count, "label": str(count % 2)} for count in (1, 3, 12, 7, 18, 2, 9, 5)]


@pytest.fixture
def without_inductor(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """torch.compile traces as ever and makes no code, which would take a minute; what it was given."""
    seen: list[Any] = []
    real = torch.compile

    def compile(function: Any, **more: Any) -> Any:
        seen.append(function)
        return real(function, backend="aot_eager", **more)

    monkeypatch.setattr(torch, "compile", compile)
    yield seen
    torch._dynamo.reset()


def trained(folder: Path, model: Path, **settings: Any) -> tuple[list[float], dict[str, Any]]:
    hubtune.train("text-classification", model=str(model), data={"train": ROWS, "validation": ROWS[:4]}, out=folder, set={
        "train.epochs": 2, "train.batch_size": 4, "train.precision": "fp64", "train.padding_free": "off",
        **{f"train.{name}": value for name, value in settings.items()}})
    lines = map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["loss"] for line in lines if "grad_norm" in line], json.loads((folder / "run.json").read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's tracer looks at every attribute
def test_a_training_with_compiled_blocks_is_the_same(without_inductor: list[Any], tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    plain, record = trained(tmp_path / "plain", model)
    assert record["compiled"] == {"used": False, "reason": "on CPUs nothing is gained"}
    assert without_inductor == []
    compiled, record = trained(tmp_path / "compiled", model, compile="on")
    assert record["compiled"]["used"]
    assert record["compute"]["compiled"]
    assert len(without_inductor) == 2  # its blocks
    assert compiled == pytest.approx(plain, rel=1e-9)
    assert record["proof"]["largest_difference"] <= 1e-6


def test_blocks_are_compiled_within_a_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def compile(function: Any, **more: Any) -> Any:
        @functools.wraps(function)
        def compiled(*given: Any) -> Any:
            calls.append(1)
            return function(*given)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    model = torch.nn.Sequential()
    model.blocks = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.nn.Sequential(torch.nn.Linear(2, 2))])
    made = block_compilation.Compiled(model)
    model.blocks[0](torch.zeros(1, 2))
    assert calls == []
    with made.computing():
        model.blocks[0](torch.zeros(1, 2))
    assert calls == [1]
    made.release()
    assert "forward" not in vars(model.blocks[0])


def test_a_model_that_cannot_be_compiled_is_trained_plainly_or_refused(tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(function: Any, **more: Any) -> Any:
        def broken(*given: Any, **named: Any) -> Any:
            raise RuntimeError("no such operator")

        return broken

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(hubtune.HubtuneError, match="no such operator"):
        trained(tmp_path / "run", tiny_model("bert"), compile="on")


def test_what_speaks_against_it() -> None:
    here, there = [torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 2.5])]
    assert block_compilation.against(here, here, None) is None
    assert block_compilation.against(here, here, 1.2) is None
    assert "1.01 times as fast" in str(block_compilation.against(here, here, 1.01))
    assert "off by" in str(block_compilation.against(here, there, 1.2))
