"""The gradient of a step is the same however it is cut, for sums over rows, for losses over the whole step, and with penalties."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import ROWS, Contrast, Numbers, Penalised, Plain, TopFirst, gradients, make_context, run

from hubtune.callbacks import Callbacks
from hubtune.training.loop import Loop

WHOLE = [list(range(ROWS))]
CUTS = [[[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]], [[5], [0, 1, 2, 3, 4], [11, 10, 9, 8, 7, 6]], [[row] for row in range(ROWS)]]


@pytest.mark.parametrize("cuts", CUTS, ids=["halves", "uneven", "single"])
@pytest.mark.parametrize(("task", "strategy"), [(Numbers, Plain), (Contrast, Plain), (Contrast, Penalised), (Numbers, Penalised)])
def test_gradients_do_not_depend_on_micro_batches(cuts: Any, task: Any, strategy: Any, tmp_path: Path) -> None:
    means, whole = gradients(make_context(tmp_path, task(), strategy()), WHOLE)
    again, parts = gradients(make_context(tmp_path, task(), strategy()), cuts)
    assert again == pytest.approx(means, rel=1e-12)
    assert ("penalty" in means) is (strategy is Penalised)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        assert one.abs().sum() > 0


@pytest.mark.parametrize(("limit", "passes"), [(ROWS * 8, 3), (1, 6)])
def test_a_loss_over_the_step_keeps_the_graphs_where_the_limit_allows(limit: int, passes: int, tmp_path: Path) -> None:
    """Otherwise each micro-batch is computed twice, with the same gradient."""
    _, whole = gradients(make_context(tmp_path, Contrast()), WHOLE)
    made = make_context(tmp_path, Contrast())
    made.compute = replace(made.compute, limit=limit)
    counted: list[int] = []
    made.model.register_forward_hook(lambda *_: counted.append(1))
    _, parts = gradients(made, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
    assert len(counted) == passes
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_phases_train_what_they_say_and_their_schedule_begins_anew(tmp_path: Path) -> None:
    made = make_context(tmp_path, strategy=TopFirst(), keep="last", warmup=0.0)
    first = made.model[0].weight.detach().clone()  # type: ignore[index, union-attr, operator]
    loop = Loop(made, Callbacks())
    assert loop.state.phases.ends == (3, 6)
    rates = []
    for step in range(6):
        loop.train_step()
        moved = not torch.equal(made.model[0].weight, first)  # type: ignore[index, arg-type]
        assert moved is (step >= 3)
        rates.append(loop.state.optimizer.param_groups[0]["lr"])
    loop.close()
    assert rates == pytest.approx([0.02, 0.02 * 2 / 3, 0.02 / 3, 0.01, 0.01 * 2 / 3, 0.01 / 3])


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_run_of_phases_resumes_as_if_it_had_not_stopped(stop: int, tmp_path: Path) -> None:
    whole = make_context(tmp_path / "whole", strategy=TopFirst())
    run(Loop(whole, Callbacks()))
    stopped = make_context(tmp_path / "stopped", strategy=TopFirst())
    loop = Loop(stopped, Callbacks())
    best = None
    for _ in range(stop):
        loop.train_step()
        if loop.progress.step == 3:
            best = loop.validate()  # an epoch ends here
    loop.save(best)
    loop.close()
    resumed = make_context(tmp_path / "stopped", strategy=TopFirst())
    resumed.resume = True
    run(Loop(resumed, Callbacks()))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_the_best_weights_of_an_early_phase_are_whole(tmp_path: Path) -> None:
    """What only a later phase moved goes back to where it was."""
    made = make_context(tmp_path, strategy=TopFirst(), learning_rate=0.01)
    first = made.model[0].weight.detach().clone()  # type: ignore[index, union-attr, operator]
    loop = Loop(made, Callbacks())
    for _ in range(3):
        loop.train_step()
    loop.progress.best, loop.progress.best_step = None, 0
    loop.save(loop.validate())
    loop.progress.best = [float("inf"), 0.0]  # nothing later is better
    run(loop)
    assert torch.equal(made.model[0].weight, first)  # type: ignore[index, arg-type]


@pytest.mark.parametrize(("setting", "newly_initialized", "stay"), [
    ("frozen", frozenset(), True), ("train", frozenset(), False), ("frozen", frozenset({"1.weight", "1.bias"}), False),
])
def test_pretrained_batch_norms_keep_their_statistics(setting: str, newly_initialized: Any, stay: bool, tmp_path: Path) -> None:
    made = make_context(tmp_path, batch_norm=setting)
    made.newly_initialized = newly_initialized
    before = made.model[1].running_mean.clone()  # type: ignore[index, union-attr, operator]
    loop = Loop(made, Callbacks())
    loop.train_step()
    loop.close()
    assert torch.equal(made.model[1].running_mean, before) is stay  # type: ignore[index, arg-type]
