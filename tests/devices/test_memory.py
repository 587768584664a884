"""Where memory does not suffice, a step is cut smaller and begun again: nothing else about the run changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import Contrast, Numbers, Plain, Tight, make_context

from hubtune import Batch
from hubtune.callbacks import Callbacks
from hubtune.devices import memory
from hubtune.errors import TrainingError
from hubtune.training.loop import Loop


class TightContrast(Tight, Contrast):
    """The same for a loss over the whole step."""

    def postprocess(self, outputs: Any, batch: Batch, base: Any) -> Any:
        return super().postprocess(outputs[:, :1], batch, base)


class RoomyContrast(TightContrast):
    after = 10**6


def trained(folder: Path, task: Any, **settings: Any) -> tuple[dict[str, torch.Tensor], Loop]:
    made = make_context(folder, task, Plain(), **{"epochs": 4.0, "weight_decay": 0.1, **settings})
    loop = Loop(made, Callbacks())
    try:
        loop.run()
    finally:
        loop.close()
    return {name: value.clone() for name, value in made.model.state_dict().items()}, loop


@pytest.mark.parametrize(("tight", "roomy"), [(Tight, Numbers), (TightContrast, RoomyContrast)])
def test_a_run_that_was_short_of_memory_at_step_7_ends_as_the_one_that_was_not(tight: Any, roomy: Any, tmp_path: Path) -> None:
    end, _ = trained(tmp_path / "roomy", roomy())
    found, loop = trained(tmp_path / "tight", tight())
    assert loop.accumulation.batcher.limit < 8192
    for name, value in end.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)


def test_a_resumed_run_remembers_what_memory_suffices_for(tmp_path: Path) -> None:
    end, _ = trained(tmp_path / "whole", Tight())
    made = make_context(tmp_path, Tight(), Plain(), epochs=4.0, weight_decay=0.1)
    loop = Loop(made, Callbacks())
    best = None
    for _ in range(8):
        loop.train_step()
        if loop.progress.step % loop.epoch_steps == 0:
            best = loop.validate() or best
    loop.save(best)
    loop.close()
    task = Tight()
    task.after = 0  # would raise, were the limit forgotten
    task.most = 2
    again = make_context(tmp_path, task, Plain(), epochs=4.0, weight_decay=0.1)
    again.resume = True
    resumed = Loop(again, Callbacks())
    assert resumed.accumulation.batcher.limit == loop.accumulation.batcher.limit < 8192
    resumed.run()
    resumed.close()
    for name, value in again.model.state_dict().items():
        assert torch.equal(value, end[name]), name


def test_one_example_that_does_not_fit_says_what_to_do(tmp_path: Path) -> None:
    class Tiny(Tight):
        after, most = 2, 0

    with pytest.raises(TrainingError, match="does not suffice for one example of 1 tokens") as caught:
        trained(tmp_path / "run", Tiny())
    assert "train.max_length" in str(caught.value.hint)


def test_other_errors_are_not_taken_for_it(tmp_path: Path) -> None:
    class Broken(Tight):
        def forward(self, model: Any, batch: Batch) -> Any:
            if model.training:
                raise RuntimeError("shapes do not match")
            return super().forward(model, batch)

    with pytest.raises(RuntimeError, match="shapes do not match"):
        trained(tmp_path / "run", Broken())


def test_few_compiled_products_are_kept_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7"})
    memory.keep_few_kernels()
    assert os.environ == {"LRU_CACHE_CAPACITY": "16", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7"}
