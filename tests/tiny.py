"""A task on a tiny model without training: what the tests of the text tasks share."""

import torch

import hubtune
from hubtune import encoding, evaluate, models
from hubtune.origin import in_folder


def prepared(task, folder, rows, limit=60, dtype=torch.float64):
    """A model for the task, its base, and its encoded rows."""
    origin = in_folder(folder)
    base = models.open_base(origin, task)
    base = models.configured(base, task.configure(task.inspect({"train": rows}), base))
    model = models.load(origin, base, task, hubtune.Strategy(), seed=0).model.to(dtype).eval()
    return model, base, encoding.encode(task, rows, base, limit)


def loss(task, model, base, examples):
    """The summed loss of examples in one batch."""
    batch = task.collate(examples, base, None)
    found = task.loss(task.forward(model, batch), batch)
    assert found.count == task.count(batch)["loss"]
    return found


def losses_add_up(task, model, base, examples):
    """Law 1: the loss of all is the sum of the losses of each, whatever padding stands beside it."""
    whole = loss(task, model, base, examples)
    parts = [loss(task, model, base, [example]) for example in examples]
    assert whole.count == sum(part.count for part in parts)
    assert torch.allclose(whole.total, sum(part.total for part in parts), rtol=1e-9)
    (whole.total / whole.count).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def answers(task, model, base, rows, limit=60):
    """The merged predictions of rows."""
    return evaluate.answer(model, task, base, rows, encoding.encode(task, rows, base, limit)).predictions
