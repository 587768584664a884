"""Embeddings that are small while a step is computed end as they would have ended whole, decay and resumes included."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from toy import Partial

from hubtune import Base, Batch, Loss, Metric, StepStrategy, Strategy
from hubtune.acceleration import embedding_pruning
from hubtune.acceleration.interface import Decision
from hubtune.callbacks import Callbacks
from hubtune.recipe import TrainConfig
from hubtune.training import memory_search
from hubtune.training.context import TrainingContext
from hubtune.training.loop import Loop

ROWS, WORDS = 12, 50


class Bag(Partial):
    """Two classes of bags of words."""

    contract, name, summary, columns, model, pipeline_tag = 2, "bag", "bags of words", (), "", ""
    metric = Metric("accuracy")

    def num_tokens(self, example: Any) -> int:
        return len(example["input_ids"])

    def collate(self, examples: Any, base: Any, rngs: Any) -> Batch:
        longest = max(len(example["input_ids"]) for example in examples)
        ids = [[*example["input_ids"], *[0] * (longest - len(example["input_ids"]))] for example in examples]
        return Batch({"ids": torch.tensor(ids)}, torch.tensor([example["label"] for example in examples]), len(examples))

    def loss(self, outputs: Any, batch: Batch) -> Loss:
        return Loss(torch.nn.functional.cross_entropy(outputs, batch.targets, reduction="sum"))

    def postprocess(self, outputs: Any, batch: Batch, base: Any) -> Any:
        return [{"label": label} for label in outputs.argmax(-1).tolist()]

    def score(self, predictions: Any, rows: Any, base: Any) -> dict[str, float]:
        return {"accuracy": float(np.mean([p["label"] == row["label"] for p, row in zip(predictions, rows, strict=True)]))}


class NewWords(Bag):
    """Draws a word that no text has, as masked language models do."""

    def collate(self, examples: Any, base: Any, rngs: Any) -> Batch:
        batch = super().collate(examples, base, rngs)
        if rngs and rngs[0].epoch == 1:
            batch.inputs["ids"][0, 0] = WORDS - 1
        return batch


class OneNewWord(Bag):
    """Draws it for examples that are computed alone."""

    def collate(self, examples: Any, base: Any, rngs: Any) -> Batch:
        batch = super().collate(examples, base, rngs)
        if rngs and len(rngs) == 1:
            batch.inputs["ids"][0, 0] = WORDS - 1
        return batch


class Full(Strategy[Any]):
    contract, name, summary = 2, "everything", "all"


class Pulled(Full, StepStrategy[Any]):
    """Looks at all weights."""

    def regularization(self, model: Any) -> Any:
        return sum((parameter**2).sum() for parameter in model.parameters())


class Bags(torch.nn.Module):
    def __init__(self, tied: bool = False, elsewhere: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(WORDS, 4, padding_idx=0)
        self.drop = torch.nn.Dropout(0.1)
        self.top = torch.nn.Linear(4, 2)
        self.out = torch.nn.Linear(4, WORDS, bias=False) if tied else None
        if self.out is not None:
            self.out.weight = self.words.weight
        self.elsewhere = elsewhere

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.words

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found = self.top(self.drop(self.words(ids).mean(1)))
        return found * (1 + self.words.weight.mean()) if self.elsewhere else found


def make_context(folder: Path, task: Any = None, strategy: Any = None, model: Any = None, **settings: Any) -> TrainingContext:
    draw = np.random.default_rng(0)
    examples = [{"input_ids": draw.integers(3, 20, 2 + row % 3).tolist(), "label": row % 2} for row in range(ROWS)]
    base = Base("tiny", "", SimpleNamespace(model_type="bags", to_dict=lambda: {"pad_token_id": 0}), None)
    settings = {"epochs": 3.0, "batch_size": 4, "learning_rate": 0.01, "weight_decay": 0.3, "keep": "last", **settings}
    return tiny.make_context(folder, task or Bag(), strategy or Full(), model or Bags(), examples, base=base,
                     compute={"overhead": 2, "kernels": ("dropout",)}, **settings)


@pytest.fixture(autouse=True)
def every_embedding_is_large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_pruning, "SMALLEST", 1)


def trained(made: TrainingContext, stop: int | None = None) -> dict[str, torch.Tensor]:
    tiny.trained(made, stop)
    return {name: value.clone() for name, value in made.model.state_dict().items()}


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("keep", ["last", "best"])
def test_training_ends_with_the_same_weights(decay: float, keep: str, tmp_path: Path) -> None:
    settings = {"weight_decay": decay, "keep": keep}
    small = make_context(tmp_path / "small", **settings)
    loop = Loop(small, Callbacks())
    assert len(small.model.words.weight) < 20  # type: ignore[union-attr, arg-type]
    loop.run()
    loop.close()
    whole = make_context(tmp_path / "whole", strategy=Full(), **settings)
    whole.settings = TrainConfig(**{**vars(whole.settings), "kernels": "plain"})
    before = whole.model.words.weight.detach().clone()  # type: ignore[union-attr, operator]
    end = trained(whole)
    assert (not torch.equal(end["words.weight"][40:], before[40:])) is (decay > 0)
    for name, value in small.model.state_dict().items():
        torch.testing.assert_close(value, end[name], rtol=1e-12, atol=1e-12)
    assert small.model.words.padding_idx == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("task", [Bag, NewWords])
@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_resumed_run_ends_bit_for_bit_as_the_other(task: Any, stop: int, tmp_path: Path) -> None:
    end = trained(make_context(tmp_path / "whole", task()))
    trained(make_context(tmp_path / "stopped", task()), stop)
    again = make_context(tmp_path / "stopped", task())
    again.resume = True
    for name, value in trained(again).items():
        assert torch.equal(value, end[name]), name


def test_a_run_with_small_tables_goes_on_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on several processes, which train whole tables."""
    end = trained(make_context(tmp_path / "whole"))
    trained(make_context(tmp_path / "stopped"), 5)
    monkeypatch.setattr(embedding_pruning, "find", lambda context: embedding_pruning.EmbeddingPruning(Decision(False, "none")))
    again = make_context(tmp_path / "stopped")
    again.resume = True
    for name, value in trained(again).items():
        torch.testing.assert_close(value, end[name], rtol=1e-12, atol=1e-12)


def test_a_word_that_no_text_has_begins_the_step_anew_with_the_whole_table(tmp_path: Path) -> None:
    small, whole = make_context(tmp_path / "small", NewWords()), make_context(tmp_path / "whole", NewWords(), kernels="plain")
    end = trained(whole)
    for name, value in trained(small).items():
        torch.testing.assert_close(value, end[name], rtol=1e-12, atol=1e-12)
    assert len(small.model.words.weight) == WORDS  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("task", [Bag, NewWords, OneNewWord])
def test_a_trial_leaves_small_tables_as_they_were(task: Any, tmp_path: Path) -> None:
    """Also where it meets a word that the table lacks."""
    end = trained(make_context(tmp_path / "plain", task()))
    made = make_context(tmp_path / "tried", task())
    plan = made.compute
    with contextlib.closing(Loop(made, Callbacks())) as loop:
        memory_search.search(loop.state, loop.accumulation)
        assert len(made.model.words.weight) < 20  # type: ignore[union-attr, arg-type]
        made.compute, loop.accumulation.batcher.limit = plan, plan.limit
        loop.run()
    for name, value in made.model.state_dict().items():
        assert torch.equal(value, end[name]), name


@pytest.mark.parametrize("case", [
    {"model": Bags(tied=True)}, {"model": Bags(elsewhere=True)}, {"strategy": Pulled()}, {"kernels": "plain"},
], ids=["tied", "used elsewhere", "a strategy that reads the weights", "plain"])
def test_a_table_that_others_use_stays_whole(case: dict[str, Any], tmp_path: Path) -> None:
    made = make_context(tmp_path, **case)
    loop = Loop(made, Callbacks())
    loop.train_step()
    loop.close()
    assert len(made.model.words.weight) == WORDS  # type: ignore[union-attr, arg-type]


def test_ids_are_found_however_deep() -> None:
    examples = [{"choices": [{"input_ids": [1, 2]}, {"input_ids": [2, 3]}], "label": 9}, {"decoder_input_ids": torch.tensor([[4], [5]])}]
    assert embedding_pruning.find_ids(examples) == {1, 2, 3, 4, 5}
