"""Toy tasks and strategies over vectors, in fp64: what the tests of the loop train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from accelerate import Accelerator

from hubtune import Batch, ContrastiveTask, Loss, Metric, Phase, StepStrategy, Strategy, Task
from hubtune.training.accumulation import Accumulation
from hubtune.training.context import TrainingContext
from hubtune.training.loop import Loop

ROWS = 12


class Partial(Task[Any]):
    """A task without methods: a test adds those that it calls."""

    def encode(self, *given: Any) -> Any:
        raise NotImplementedError

    num_tokens = collate = loss = postprocess = score = encode


class Numbers(Partial):
    """Vectors and what they sum to."""

    contract, name, summary, columns, model, pipeline_tag = 2, "numbers", "sums", (), "", ""
    metric = Metric("error", higher_is_better=False)

    def num_tokens(self, example: Any) -> int:
        return 1

    def collate(self, examples: Any, base: Any, rngs: Any) -> Batch:
        inputs = torch.tensor([example["x"] for example in examples], dtype=torch.float64)
        return Batch({"input": inputs}, inputs.sum(1), len(examples))

    def loss(self, outputs: Any, batch: Batch) -> Any:
        return Loss(((outputs.squeeze(1) - batch.targets) ** 2).sum())

    def postprocess(self, outputs: Any, batch: Batch, base: Any) -> Any:
        return [{"value": value} for value in outputs.squeeze(1).tolist()]

    def score(self, predictions: Any, rows: Any, base: Any) -> dict[str, float]:
        return {"error": float(np.mean([(p["value"] - sum(row["x"])) ** 2 for p, row in zip(predictions, rows, strict=True)]))}


class Contrast(ContrastiveTask[Any], Numbers):
    """Every vector against every other of the step."""

    name = "contrast"

    def embed(self, outputs: Any, batch: Batch) -> Any:
        return torch.stack([outputs, outputs * batch.targets[:, None]], 1)

    def contrastive_loss(self, embeddings: Any, batches: Any) -> Loss:
        one, other = embeddings.unbind(1)
        logits = one @ other.T
        targets = torch.arange(len(logits))
        return Loss(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))


class Plain(Strategy[Any]):
    """Everything learns."""

    contract, name, summary = 2, "plain", "all"


class Penalised(StepStrategy[Any]):
    """Pulls the weights to zero."""

    contract, name, summary = 2, "penalised", "a penalty"

    def regularization(self, model: Any) -> Any:
        return sum((parameter**2).sum() for parameter in model.parameters())


class TopFirst(Strategy[Any]):
    """The last layer first, then all."""

    contract, name, summary = 2, "top-first", "two phases"

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("top", 0.5, rate=2.0), Phase("all", 0.5))

    def start_phase(self, model: Any, phase: Phase) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad = phase.name == "all" or name.startswith("2.")


def make_context(folder: Path, task: Any = None, strategy: Any = None, model: Any = None, **settings: Any) -> TrainingContext:
    draw = np.random.default_rng(0)
    examples = [{"x": draw.normal(size=4).tolist(), "row": row} for row in range(ROWS)]
    task = task or Numbers()
    torch.manual_seed(0)
    model = model or torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3 if isinstance(task, Contrast) else 1))
    settings = {"epochs": 2.0, "batch_size": 4, "learning_rate": 0.01, "weight_decay": 0.0, **settings}
    return tiny.make_context(folder, task, strategy or Plain(), model.double(), examples, compute={"overhead": 64}, **settings)


def run(loop: Loop) -> None:
    try:
        loop.run()
    finally:
        loop.close()


def gradients(made: TrainingContext, cuts: list[list[int]]) -> tuple[dict[str, float], list[torch.Tensor]]:
    accelerator = Accelerator(cpu=True)
    made.model.eval()  # batch norm, like dropout, sees the cut
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    means = Accumulation(made, accelerator, scaler).gradient(accelerator.prepare(made.model), 0, 0, cuts)
    return means, [parameter.grad.clone() for parameter in made.model.parameters() if parameter.grad is not None]


FULL = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."


class Tight(Numbers):
    """From some forward pass on, memory suffices for so many rows."""

    after, most = 6, 2

    def forward(self, model: Any, batch: Batch) -> Any:
        if model.training:
            self.after -= 1
            if self.after < 0 and batch.size > self.most:
                raise RuntimeError(FULL)
        return super().forward(model, batch)
