"""A training refuses a task whose loss was averaged, before step 0; a loss over the whole step is not asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hubtune_plugins.text.text_classification import TextClassification
from toy import Contrast, Numbers, make_context

import hubtune
from hubtune.errors import BrokenPlugin
from hubtune.evaluation import loss_checks
from hubtune.testing.bench import registered

ROWS = [{"text": f"{'good' if n % 2 else 'bad'} film {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]


class Averaged(TextClassification):
    """Averages its loss, and still counts its rows."""

    name = "averaged"

    def loss(self, outputs: Any, batch: Any) -> Any:
        return dataclasses.replace(made := super().loss(outputs, batch), total=made.total / batch.size)


class OneOfAll(Numbers):
    """Sums its loss, and counts one whatever the batch."""

    def collate(self, examples: Any, base: Any, rngs: Any) -> Any:
        return dataclasses.replace(super().collate(examples, base, rngs), counts={"loss": 1.0})


def asked(task: Any, folder: Path) -> None:
    made = make_context(folder, task)
    loss_checks.check_loss_is_sum(made.model, task, made.base, made.train)
    assert made.model.training  # as it was


def test_a_training_refuses_a_loss_that_was_averaged(tiny_model: Any, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"model": str(tiny_model("bert")), "data": ROWS, "set": ["train.epochs=1", "train.verify=false"]}
    with registered(Averaged), pytest.raises(BrokenPlugin, match="the loss of the task 'averaged' is not a sum: the total") as caught:
        hubtune.train("averaged", out=str(tmp_path / "averaged"), **arguments)
    assert "reduction=\"sum\"" in str(caught.value.hint)
    assert not (tmp_path / "averaged" / "log.jsonl").exists()
    hubtune.train("text-classification", out=str(tmp_path / "summed"), **arguments)


def test_counts_have_to_add_up_as_well(tmp_path: Path) -> None:
    with pytest.raises(BrokenPlugin, match=r"`Batch.counts` .loss. of an example is 1, and of the same example twice 1"):
        asked(OneOfAll(), tmp_path / "run")


@pytest.mark.parametrize("task", [Numbers(), Contrast()])
def test_a_sum_and_a_loss_over_the_whole_step_are_fine(task: Any, tmp_path: Path) -> None:
    asked(task, tmp_path / "run")
