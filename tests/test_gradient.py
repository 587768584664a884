"""The gradient of a step is the same however it is cut, for sums over rows, for losses over the whole step, and with penalties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from accelerate import Accelerator

from hubtune import Batch, Loss, Metric, Phase, Strategy, Task
from hubtune.engine import Loop
from hubtune.gradient import Gradient
from hubtune.watch import Watcher
from hubtune.work import Work

ROWS = 12


class Numbers(Task[Any]):
    """Vectors and what they sum to."""

    contract, name, summary, columns, model, pipeline_tag = 1, "numbers", "sums", (), "", ""
    metric = Metric("error", higher_is_better=False)

    def size(self, example: Any) -> int:
        return 1

    def collate(self, examples: Any, base: Any, draws: Any) -> Batch:
        inputs = torch.tensor([example["x"] for example in examples], dtype=torch.float64)
        return Batch({"input": inputs}, inputs.sum(1), len(examples))

    def loss(self, outputs: Any, batch: Batch) -> Any:
        return Loss(((outputs.squeeze(1) - batch.targets) ** 2).sum(), batch.size)

    def judge(self, outputs: Any, batch: Batch, base: Any) -> Any:
        return [{"value": value} for value in outputs.squeeze(1).tolist()]

    def score(self, predictions: Any, rows: Any, base: Any) -> dict[str, float]:
        return {"error": float(np.mean([(p["value"] - sum(row["x"])) ** 2 for p, row in zip(predictions, rows, strict=True)]))}


class Contrast(Numbers):
    """Every vector against every other of the step."""

    name, additive = "contrast", False
    loss = Task.loss

    def represent(self, outputs: Any, batch: Batch) -> Any:
        return torch.stack([outputs, outputs * batch.targets[:, None]], 1)

    def loss_over(self, representations: Any, batches: Any) -> Loss:
        one, other = representations.unbind(1)
        logits = one @ other.T
        targets = torch.arange(len(logits))
        return Loss(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"), len(logits))


class Plain(Strategy[Any]):
    """Everything learns."""

    contract, name, summary = 1, "plain", "all"


class Penalised(Strategy[Any]):
    """Pulls the weights to zero."""

    contract, name, summary = 1, "penalised", "a penalty"

    def penalty(self, model: Any) -> Any:
        return sum((parameter**2).sum() for parameter in model.parameters())


class TopFirst(Strategy[Any]):
    """The last layer first, then all."""

    contract, name, summary = 1, "top-first", "two phases"

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("top", 0.5, rate=2.0), Phase("all", 0.5))

    def enter(self, model: Any, phase: Phase) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad = phase.name == "all" or name.startswith("2.")


def work(folder: Path, task: Any = None, strategy: Any = None, model: Any = None, **settings: Any) -> Work:
    draw = np.random.default_rng(0)
    examples = [{"x": draw.normal(size=4).tolist(), "row": row} for row in range(ROWS)]
    task = task or Numbers()
    torch.manual_seed(0)
    model = model or torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3 if isinstance(task, Contrast) else 1))
    settings = {"epochs": 2.0, "batch_size": 4, "lr": 0.01, "weight_decay": 0.0, **settings}
    return tiny.work(folder, task, strategy or Plain(), model.double(), examples, compute={"overhead": 64}, **settings)


def run(loop: Loop) -> None:
    try:
        loop.run()
    finally:
        loop.close()


def gradients(made: Work, cuts: list[list[int]]) -> tuple[dict[str, float], list[torch.Tensor]]:
    accelerator = Accelerator(cpu=True)
    made.model.eval()  # batch norm, like dropout, sees the cut
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    means = Gradient(made, accelerator, scaler).of_step(accelerator.prepare(made.model), 0, 0, cuts)
    return means, [parameter.grad.clone() for parameter in made.model.parameters() if parameter.grad is not None]


WHOLE = [list(range(ROWS))]
CUTS = [[[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]], [[5], [0, 1, 2, 3, 4], [11, 10, 9, 8, 7, 6]], [[row] for row in range(ROWS)]]


@pytest.mark.parametrize("cuts", CUTS, ids=["halves", "uneven", "single"])
@pytest.mark.parametrize(("task", "strategy"), [(Numbers, Plain), (Contrast, Plain), (Contrast, Penalised), (Numbers, Penalised)])
def test_a_step_has_one_gradient_however_it_is_cut(cuts: Any, task: Any, strategy: Any, tmp_path: Path) -> None:
    means, whole = gradients(work(tmp_path, task(), strategy()), WHOLE)
    again, parts = gradients(work(tmp_path, task(), strategy()), cuts)
    assert again == pytest.approx(means, rel=1e-12)
    assert ("penalty" in means) is (strategy is Penalised)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        assert one.abs().sum() > 0


def test_phases_train_what_they_say_and_their_schedule_begins_anew(tmp_path: Path) -> None:
    made = work(tmp_path, strategy=TopFirst(), keep="last", warmup=0.0)
    first = made.model[0].weight.detach().clone()  # type: ignore[index, union-attr, operator]
    loop = Loop(made, Watcher())
    assert loop.learner.ends == (3, 6)
    rates = []
    for step in range(6):
        loop.one_step()
        moved = not torch.equal(made.model[0].weight, first)  # type: ignore[index, arg-type]
        assert moved is (step >= 3)
        rates.append(loop.learner.optimizer.param_groups[0]["lr"])
    loop.close()
    assert rates == pytest.approx([0.02, 0.02 * 2 / 3, 0.02 / 3, 0.01, 0.01 * 2 / 3, 0.01 / 3])


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_run_of_phases_resumes_as_if_it_had_not_stopped(stop: int, tmp_path: Path) -> None:
    whole = work(tmp_path / "whole", strategy=TopFirst())
    run(Loop(whole, Watcher()))
    stopped = work(tmp_path / "stopped", strategy=TopFirst())
    loop = Loop(stopped, Watcher())
    best = None
    for _ in range(stop):
        loop.one_step()
        if loop.progress.step == 3:
            best = loop.validate()  # an epoch ends here
    loop.save(best)
    loop.close()
    resumed = work(tmp_path / "stopped", strategy=TopFirst())
    resumed.resume = True
    run(Loop(resumed, Watcher()))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_the_best_weights_of_an_early_phase_are_whole(tmp_path: Path) -> None:
    """What only a later phase moved goes back to where it was."""
    made = work(tmp_path, strategy=TopFirst(), lr=0.01)
    first = made.model[0].weight.detach().clone()  # type: ignore[index, union-attr, operator]
    loop = Loop(made, Watcher())
    for _ in range(3):
        loop.one_step()
    loop.progress.best, loop.progress.best_step = None, 0
    loop.save(loop.validate())
    loop.progress.best = [float("inf"), 0.0]  # nothing later is better
    run(loop)
    assert torch.equal(made.model[0].weight, first)  # type: ignore[index, arg-type]


@pytest.mark.parametrize(("setting", "fresh", "stay"), [
    ("frozen", frozenset(), True), ("train", frozenset(), False), ("frozen", frozenset({"1.weight", "1.bias"}), False),
])
def test_pretrained_batch_norms_keep_their_statistics(setting: str, fresh: Any, stay: bool, tmp_path: Path) -> None:
    made = work(tmp_path, batch_norm=setting)
    made.fresh = fresh
    before = made.model[1].running_mean.clone()  # type: ignore[index, union-attr, operator]
    loop = Loop(made, Watcher())
    loop.one_step()
    loop.close()
    assert torch.equal(made.model[1].running_mean, before) is stay  # type: ignore[index, arg-type]
