"""An optimizer in 8 bits: refused where it cannot be, and otherwise in the place of the strategy's."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from toy import Plain, make_context, run

import hubtune
from hubtune.callbacks import Callbacks
from hubtune.errors import MissingExtra, RecipeError
from hubtune.training import optimizers
from hubtune.training.loop import Loop


class Own(Plain, hubtune.OptimizerStrategy[Any]):
    """With an optimizer of its own."""

    def optimizer(self, groups: Any, lr: float) -> Any:
        return torch.optim.SGD(groups, lr=lr)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    """What bitsandbytes offers, in 32 bits."""
    library, inner = ModuleType("bitsandbytes"), ModuleType("bitsandbytes.optim")
    library.__spec__ = importlib.machinery.ModuleSpec("bitsandbytes", None)
    inner.AdamW8bit = torch.optim.AdamW  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", library)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", inner)


def test_without_the_library_the_run_is_refused_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="needs the package bitsandbytes") as refused:
        hubtune.check("text-classification", model="nowhere", data=[{"text": "x", "label": "y"}], set={"train.optimizer": "adamw-8bit"})
    assert "hubtune[qlora]" in str(refused.value.hint)


def test_it_needs_a_gpu_and_a_strategy_without_its_own(library: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match="needs an NVIDIA GPU"):
        optimizers.check_available("adamw-8bit", Plain())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    optimizers.check_available("adamw-8bit", Plain())
    with pytest.raises(RecipeError, match="'plain' has an optimizer of its own"):
        optimizers.check_available("adamw-8bit", Own())
    optimizers.check_available("adamw", Own())


def test_it_takes_the_place_of_the_strategys(library: None, tmp_path: Path) -> None:
    """As AdamW in 32 bits, which the library is here, it ends with the same weights."""
    ends = []
    for name in ("adamw", "adamw-8bit"):
        made = make_context(tmp_path / name, optimizer=name, weight_decay=0.1)
        run(Loop(made, Callbacks()))
        ends.append(made.model.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-9, atol=1e-9)
