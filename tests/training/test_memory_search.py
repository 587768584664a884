"""The memory search before step 0 sets limits and leaves no other trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy import FULL, Contrast, Numbers, Penalised, Plain, TopFirst, make_context

import hubtune
from hubtune.callbacks import Callbacks
from hubtune.devices import device, memory
from hubtune.devices.device import Compute
from hubtune.testing import checks
from hubtune.training import memory_search
from hubtune.training.context import TrainingContext
from hubtune.training.loop import Loop
from hubtune.training.memory_search import Rung, estimate_bytes, growth_factor, ladder, largest_that_fits

ROWS = [{"text": "good " * (1 + n % 9) if n % 2 else "bad " * (2 + n % 7), "label": "yes" if n % 2 else "no"} for n in range(40)]
SET = {"train.epochs": 2.0, "train.batch_size": 8, "train.precision": "fp32", "train.verify": False, "train.keep": "last"}


class Scored(Contrast):
    def postprocess(self, outputs: Any, batch: Any, base: Any) -> Any:
        return super().postprocess(outputs[:, :1], batch, base)


class Follows(torch.nn.Module):
    """Takes away the mean of what it has seen while it learned, as a batch norm does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean += 0.1 * (values.detach().mean(0) - self.mean)
        return values - self.mean


def dropping(made: TrainingContext) -> TrainingContext:
    """With dropout, and statistics that follow the data."""
    linear, _, last = made.model.children()
    made.model = torch.nn.Sequential(linear, torch.nn.Sequential(Follows(), torch.nn.Dropout(0.3)), last).double()
    return made


def weights_of(made: TrainingContext, searched: bool) -> dict[str, torch.Tensor]:
    """The weights of a run, with or without a memory search before it, with the same limits."""
    plan = made.compute
    with closing(Loop(made, Callbacks())) as loop:
        if searched:
            memory_search.search(loop.state, loop.accumulation)
            made.compute, loop.accumulation.batcher.limit = plan, plan.limit
        loop.run()
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def test_a_model_that_cannot_be_tried_is_trained_all_the_same(tmp_path: Path) -> None:
    """Its batch norm takes no single row: the plan stays what it was, and says why."""
    made = make_context(tmp_path, batch_norm="train")
    with closing(Loop(made, Callbacks())) as loop:
        assert memory_search.search(loop.state, loop.accumulation) is None
        assert "Expected more than 1 value per channel" in made.compute.trial["reason"]
        assert replace(made.compute, trial={}) == Compute("cpu", "fp64", 0, 64, 8192)
        loop.run()


@pytest.mark.parametrize(("task", "strategy"), [(Numbers, Plain), (Numbers, TopFirst), (Scored, Plain), (Numbers, Penalised)])
def test_a_run_with_a_trial_is_the_run_without_it_bit_for_bit(task: Any, strategy: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"weight_decay": 0.1, "epochs": 3.0}
    one, other = (weights_of(dropping(make_context(tmp_path / name, task(), strategy(), **settings)), name == "searched") for name in ("searched", "plain"))
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_generators_statistics_and_gradients_are_as_they_were(tmp_path: Path) -> None:
    made = dropping(make_context(tmp_path))
    with closing(Loop(made, Callbacks())) as loop:
        before = {name: value.clone() for name, value in made.model.state_dict().items()}
        drawn = torch.get_rng_state()
        assert memory_search.search(loop.state, loop.accumulation)
        assert torch.equal(torch.get_rng_state(), drawn)
        assert all(torch.equal(value, before[name]) for name, value in made.model.state_dict().items())
        assert all(parameter.grad is None for parameter in made.model.parameters())
        assert loop.state.start_step(0)
        assert not loop.state.optimizer.optimizer.state


def test_the_phase_that_trains_the_most_weights_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phases = []
    monkeypatch.setattr(memory_search.MemorySearch, "set_limits", lambda self: phases.append(self.state.phases.largest_phase(self.state.module)))
    with closing(Loop(make_context(tmp_path, strategy=TopFirst()), Callbacks())) as loop:
        memory_search.search(loop.state, loop.accumulation)
    assert phases == [1]


# -------------------------------------------------------------------------------------------------- short of memory


NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def trained(out: Path, tiny_model: Any, **more: Any) -> Any:
    return hubtune.train("text-classification", model=tiny_model("bert", **NO_DROPOUT), data=ROWS, out=out,
                         set={**SET, "train.precision": "fp64", **more})


def test_a_machine_without_room_recomputes_and_ends_with_the_same_weights(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trained(tmp_path / "plain", tiny_model)
    assert not plain.record["compute"]["recompute"]
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1)
    short = trained(tmp_path / "short", tiny_model)
    assert short.record["compute"]["recompute"]
    assert short.record["compute"]["limit"] < 20
    assert short.record["compute"]["evaluation"] < 20
    one, other = (load_file(run.folder / "model/model.safetensors") for run in (plain, short))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-6)
    assert short.record["metrics"] == plain.record["metrics"]
    monkeypatch.undo()  # the plan is taken as it is, where there is room again
    again = trained(tmp_path / "again", tiny_model, **{"train.plan": str(short.folder)})
    assert again.record["compute"] == short.record["compute"]
    assert (again.folder / "model/model.safetensors").read_bytes() == (short.folder / "model/model.safetensors").read_bytes()


class Recomputing(torch.nn.Sequential):
    """Can compute its activations again, and then needs no memory for them."""

    supports_gradient_checkpointing = True
    gradient_checkpointing = False

    def activation_checkpointing_enable(self, how: Any) -> None:
        self.gradient_checkpointing = True


class Hungry(Numbers):
    """After some passes, memory suffices for no row, unless activations are computed again."""

    after = 3

    def forward(self, model: Any, batch: Any) -> Any:
        self.after -= model.training
        if model.training and self.after < 0 and not model.gradient_checkpointing:
            raise RuntimeError(FULL)
        return super().forward(model, batch)


def test_a_run_that_cannot_hold_one_row_any_more_recomputes_from_there_also_when_it_is_resumed(tmp_path: Path) -> None:
    def made(name: str, task: Any) -> TrainingContext:
        found = make_context(tmp_path / name, task, Plain(), weight_decay=0.1)
        found.model = Recomputing(*found.model.children())
        return found

    roomy = weights_of(made("roomy", Numbers()), searched=False)
    with closing(Loop(made("hungry", Hungry()), Callbacks())) as loop:
        while not loop.context.compute.recompute:
            loop.train_step()
        assert loop.progress.step < loop.steps
        loop.save()
    again = made("hungry", Hungry())
    again.resume, again.task.after = True, 0
    with closing(Loop(again, Callbacks())) as loop:
        assert loop.context.compute.recompute
        loop.run()
    for name, value in again.model.state_dict().items():
        torch.testing.assert_close(value, roomy[name], rtol=1e-9, atol=1e-9)


# -------------------------------------------------------------------------------------------------------- whole runs


def test_a_plan_repeats_a_run_with_dropout_bit_for_bit_without_a_trial(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, out=tmp_path / "one", set=SET)
    assert one.record["compute"]["trial"]["room"] > 0
    with monkeypatch.context() as patch:
        patch.setattr(memory_search, "search", lambda *given: pytest.fail("memory was searched again"))
        patch.setattr(device, "choose", lambda *given: pytest.fail("the device was looked at again"))
        other = hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, out=tmp_path / "other",
                              set={**SET, "train.plan": str(one.folder)})
    assert other.record["compute"] == one.record["compute"]
    assert (one.folder / "model/model.safetensors").read_bytes() == (other.folder / "model/model.safetensors").read_bytes()
    assert str(one.folder) not in (other.folder / "model/README.md").read_text(encoding="utf-8")


def test_a_resumed_run_measures_nothing(tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"model": tiny_model("bert"), "data": ROWS, "out": tmp_path / "run"}
    with pytest.raises(checks.Stopped):
        hubtune.train("text-classification", callbacks=checks.Stop(3), **asked, set={**SET, "train.save_minutes": 0.0})
    began = json.loads((tmp_path / "run/run.json").read_text())
    monkeypatch.setattr(memory_search, "search", lambda *given: pytest.fail("memory was searched again"))
    run = hubtune.resume(tmp_path / "run", data=ROWS)
    assert (run.record["compute"], run.record["expected"]) == (began["compute"], began["expected"])


def test_a_plan_that_does_not_fit_is_refused_before_anything_is_made(tiny_model: Any, tmp_path: Path) -> None:
    with pytest.raises(hubtune.HubtuneError, match=r"train.plan=nowhere: .* no run\.json"):
        hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, out=tmp_path / "run", set={**SET, "train.plan": "nowhere"})
    assert not (tmp_path / "run").exists()


def test_a_model_that_overflows_in_fp16_is_computed_in_fp32(tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a made-up device that has fp16; the autocast is the CPU's own."""
    chosen = device.choose
    monkeypatch.setattr(device, "choose", lambda *given: replace(chosen("fp32"), precision="fp16", kernels=()))
    monkeypatch.setattr(memory_search, "search", lambda *given: None)
    settings = {**SET, "train.precision": "auto", "train.max_steps": 1}
    del settings["train.epochs"]
    asked: dict[str, Any] = {"data": ROWS, "set": settings}
    fine = hubtune.train("text-classification", model=tiny_model("bert"), out=tmp_path / "bert", **asked).record["compute"]
    assert fine["precision"] == "fp16"
    t5 = hubtune.train("text-classification", model=tiny_model("t5"), out=tmp_path / "t5", **asked).record["compute"]
    assert (t5["precision"], t5["why"]) == ("fp32", "not fp16: transformers keeps wo of this family out of fp16")
    monkeypatch.setattr("hubtune.evaluation.model_checks.has_finite_loss", lambda *given: False)
    found = hubtune.train("text-classification", model=tiny_model("bert"), out=tmp_path / "broken", **asked).record["compute"]
    assert (found["precision"], found["why"]) == ("fp32", "not fp16: its loss in fp16 is not finite")


# ------------------------------------------------------------------------------------------------- the search itself


SIZES = np.array([5, 6, 8, 9, 17, 30, 61, 128])


@pytest.mark.parametrize(("limit", "most", "last"), [(8192, 16, (16, 128)), (512, 16, (4, 128)), (100, 16, (1, 128)), (8192, 1, (1, 128))])
def test_the_ladder_ends_with_the_largest_micro_batch_that_a_run_may_meet(limit: int, most: int, last: Rung) -> None:
    found = ladder(SIZES, limit, most)
    assert found[-1] == last
    assert all(size in SIZES for _, size in found)
    tokens = [count * size for count, size in found]
    assert tokens == sorted(set(tokens))
    dense = ladder(np.arange(5, 129), limit, most)
    assert all(growth_factor(one, other) <= 4 for one, other in pairwise(dense))


def machine(fixed: int, token: int, square: int) -> Callable[[Rung], int]:
    """Bytes of a micro-batch: of the gradient, of every token, and of every pair of tokens of an example."""
    return lambda rung: fixed + rung[0] * (rung[1] * token + rung[1] ** 2 * square)


@pytest.mark.parametrize("square", [0, 1, 50])
@pytest.mark.parametrize("room", [0, 900, 3_000, 20_000, 60_000, 10**6, 10**8])
def test_nothing_is_tried_that_does_not_fit_and_what_fits_is_found(square: int, room: int) -> None:
    true, rungs, seen = machine(500, 10, square), ladder(SIZES, 8192, 16), []

    def used(rung: Rung) -> int:
        seen.append(rung)
        return true(rung)

    fits, tried = largest_that_fits(rungs, used, room, fixed=500)
    assert all(true(rung) <= room for rung in seen[1:])  # the first cannot be known beforehand
    assert tried == [(rung, true(rung)) for rung in seen if true(rung) <= room]
    if fits is None:
        assert true(rungs[0]) > room
        return
    assert true(fits) <= room
    if fits != rungs[-1]:  # at most one rung is given away to caution
        after = rungs[min(len(rungs) - 1, rungs.index(fits) + 2)]
        assert true(after) > room or 500 + (true(fits) - 500) * growth_factor(fits, after) > room


@pytest.mark.parametrize("rung", [(1, 128), (3, 61), (16, 128)])
def test_what_a_micro_batch_will_use_is_on_the_line_through_those_that_were_tried(rung: Rung) -> None:
    true = machine(700, 10, 0)
    two = [(tried, true(tried)) for tried in ((1, 5), (2, 17))]
    assert estimate_bytes(rung, two) == estimate_bytes(rung, two[1:], fixed=700) == true(rung)
    assert estimate_bytes(rung, [], fixed=700) == 700
    assert estimate_bytes((1, 1), two) == true((2, 17))  # memory that was held once is not less


def test_with_plenty_of_memory_one_try_is_enough() -> None:
    rungs = ladder(SIZES, 8192, 16)

    def used(rung: Rung) -> int:
        return rung[0] * rung[1]

    assert largest_that_fits(rungs, used, 10**9) == (rungs[-1], [(rungs[0], used(rungs[0]))])


def test_memory_that_is_not_to_be_had_ends_the_search() -> None:
    """A device that reports room, and then has none: a micro-batch that did not fit is not computed again, nor a larger one."""
    rungs, seen = ladder(SIZES, 8192, 16), []

    def used(rung: Rung) -> int | None:
        seen.append(rung)
        return None if rung[0] > 2 else rung[0] * rung[1]

    fits, tries = largest_that_fits(rungs, used, 1000)
    assert fits == tries[-1][0] == (2, 128)
    assert len(seen) == len(set(seen))
    assert largest_that_fits(rungs, lambda rung: None, 10**9) == (None, [])
