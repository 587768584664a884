"""A task on a tiny model: what tests share that do not go through a whole run."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import hubtune
from hubtune import Base
from hubtune.callbacks import Callbacks
from hubtune.data import encoding
from hubtune.data.dataset import EncodedDataset
from hubtune.devices.device import Compute
from hubtune.evaluation.inference import Predictor
from hubtune.hub.origin import local_origin
from hubtune.models import configuration, loading
from hubtune.recipe import TrainConfig
from hubtune.testing.fixtures import fixture_for
from hubtune.training.context import TrainingContext
from hubtune.training.loop import Loop


def make_context(folder, task, strategy, model, train, validation=None, rows=None, *, base=None, newly_initialized=frozenset(), compute=None,
         resume=False, shard=False, **settings):
    """All that the loop needs, in fp64 on the CPU. train, validation: `EncodedDataset`, or examples that are a row each; by default one
    is validated on what it learns from. rows: what is scored; the examples by default. compute: what is different of `Compute`."""
    folder.mkdir(exist_ok=True)
    train = encoded(task, train)
    validation = train if validation is None else encoded(task, validation)
    base = base or Base("tiny", "", SimpleNamespace(model_type="tiny", to_dict=dict), None)
    part = TrainConfig(**{"early_stopping_patience": 0, **settings})
    compute = replace(Compute("cpu", "fp64", 0, 4, 8192), **(compute or {}))
    return TrainingContext(task, strategy, base, model, newly_initialized, train, validation, rows or validation.examples, part, compute, folder, resume, shard=shard)


def trained(work, stop=None):
    """The loop of a training that has ended, or that stopped after so many steps with a checkpoint."""
    loop = Loop(work, Callbacks())
    try:
        if stop is None:
            loop.run()
        else:
            for _ in range(stop):
                loop.train_step()
            loop.save()
    finally:
        loop.close()
    return loop


def encoded(task, examples):
    """Examples that are a row each."""
    if isinstance(examples, EncodedDataset):
        return examples
    return EncodedDataset(examples, np.arange(len(examples)), np.array([task.num_tokens(example) for example in examples]), len(examples))


def prepared(task, folder, rows, limit=60, dtype=torch.float64):
    """A model for the task, its base, and its encoded rows."""
    origin = local_origin(folder)
    base = configuration.open_base(origin, task)
    base = configuration.apply_setup(base, task.model_config(task.validate_data({"train": rows}), base))
    model = loading.load(origin, base, task, hubtune.Strategy(), seed=0).model.to(dtype).eval()
    return model, base, encoding.encode(task, rows, base, limit)


def loss(task, model, base, examples):
    """The summed loss of examples in one batch."""
    batch = task.collate(examples, base, None)
    return task.loss(task.forward(model, batch), batch)


def counts(task, base, examples):
    """The counts of examples in one batch, by loss term."""
    return dict(task.collate(examples, base, None).counts)


def sample(task, count):
    """Labelled rows of a task's fixture."""
    return fixture_for(task).sample(task, count)


def gold_answer(task, row, base):
    """The prediction that a row of the fixture deserves."""
    return fixture_for(task).gold(task, row, base)


def losses_add_up(task, model, base, examples):
    """Law 1: the loss of all is the sum of the losses of each, whatever padding stands beside it."""
    whole = loss(task, model, base, examples)
    parts = [loss(task, model, base, [example]) for example in examples]
    count = counts(task, base, examples)["loss"]
    assert count == sum(counts(task, base, [example])["loss"] for example in examples)
    assert torch.allclose(whole.total, sum(part.total for part in parts), rtol=1e-9)
    (whole.total / count).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def answers(task, model, base, rows, limit=60):
    """The merged predictions of rows."""
    return Predictor(model, task, base).predict(rows, encoding.encode(task, rows, base, limit))


def skip_where_versions_disagree(reason):
    """Skip a test of a strategy that is refused because of the installed versions of two libraries alone.

    reason: the answer of `Strategy.refuse`, or None.
    """
    if reason and "until it does: pip install" in reason:
        pytest.skip(reason)
