"""A backbone that stays as it is gives its outputs once, and the head ends as it would have ended without; else all is computed as ever."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hubtune_plugins.finetuning.full import Full
from hubtune_plugins.finetuning.head import Head
from hubtune_plugins.text.text_classification import TextClassification
from hubtune_plugins.text.token_classification import TokenClassification
from toy import Partial

import hubtune
from hubtune import Batch, Loss, Metric, Phase, StepStrategy, Strategy
from hubtune.acceleration import feature_cache, frozen_backbone
from hubtune.callbacks import Callbacks
from hubtune.data import encoding
from hubtune.errors import ResumeError
from hubtune.hub.origin import local_origin
from hubtune.models import loading
from hubtune.training.context import TrainingContext
from hubtune.training.loop import Loop

ROWS = 20


# ---------------------------------------------------------------------------------------------- a small world


class Words(Partial):
    """Classes of short texts."""

    contract, name, summary, columns, model, pipeline_tag = 2, "words", "words", (), "", ""
    metric = Metric("accuracy")

    def num_tokens(self, example: Any) -> int:
        return len(example["input_ids"])

    def collate(self, examples: Any, base: Any, rngs: Any) -> Batch:
        longest = max(map(self.num_tokens, examples))
        ids = torch.tensor([[*example["input_ids"], *[0] * (longest - self.num_tokens(example))] for example in examples])
        return Batch({"input_ids": ids, "attention_mask": (ids > 0).long()}, torch.tensor([e["label"] for e in examples]), len(examples))

    def loss(self, outputs: Any, batch: Batch) -> Loss:
        return Loss(torch.nn.functional.cross_entropy(outputs, batch.targets, reduction="sum"))

    def postprocess(self, outputs: Any, batch: Batch, base: Any) -> Any:
        return [{"score": score} for score in outputs[:, 0].tolist()]

    def score(self, predictions: Any, rows: Any, base: Any) -> dict[str, float]:
        return {"accuracy": float(np.mean([(p["score"] > 0) == (row["label"] == 0) for p, row in zip(predictions, rows, strict=True)]))}


class Drawn(Words):
    """Masks a word of every text."""

    def collate(self, examples: Any, base: Any, rngs: Any) -> Batch:
        batch = super().collate(examples, base, rngs)
        for place, draw in enumerate(rngs or ()):
            batch.inputs["input_ids"][place, draw.random().randrange(2)] = 1
        return batch


class Left(Words):
    """Pads on the left."""

    def collate(self, examples: Any, base: Any, rngs: Any) -> Batch:
        batch = super().collate(examples, base, rngs)
        return Batch({name: value.flip(1) for name, value in batch.inputs.items()}, batch.targets, batch.size)


class Twice(Words):
    def forward(self, model: Any, batch: Batch) -> Any:
        return (super().forward(model, batch) + super().forward(model, batch)) / 2


class Top(Strategy[Any]):
    """Only the head learns."""

    contract, name, summary = 2, "top", "the head"

    def start_phase(self, model: Any, phase: Phase) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name.startswith("top.")


class All(Strategy[Any]):
    contract, name, summary = 2, "all", "everything"


class HeadThenAll(Top):
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("head", 0.5), Phase("all", 0.5))

    def start_phase(self, model: Any, phase: Phase) -> None:
        super().start_phase(model, phase)
        if phase.name == "all":
            model.requires_grad_(True)


class Looking(Top, StepStrategy[Any]):
    def after_step(self, model: Any, step: int, steps: int) -> None:
        pass


class Body(torch.nn.Module):
    """Words, each seen through those beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(30, 6)
        self.mix = torch.nn.Linear(6, 6)
        self.drop = torch.nn.Dropout(0.5)
        self.rows: list[int] = []

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(ids))
        known = self.words(ids) * mask[..., None]
        return self.drop(torch.tanh(self.mix(known + known.sum(1, keepdim=True))))


class Reader(torch.nn.Module):
    base_model_prefix = "body"

    def __init__(self, **changed: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.drop, self.top, self.changed = Body(), torch.nn.Dropout(0.2), torch.nn.Linear(6, 2), changed

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        found = self.body(input_ids, attention_mask)
        if "padding" in self.changed:  # looks at what stands beyond the text
            return self.top(self.drop(found[:, -1]))
        if "table" in self.changed:  # uses the backbone beside its outputs
            return self.top(self.drop(found[:, 0])) * (1 + self.body(input_ids[:1], attention_mask[:1]).mean())
        kept = found * attention_mask[..., None]
        return self.top(self.drop(kept.sum(1) / attention_mask.sum(1, keepdim=True)))


class Bodiless(Reader):
    base_model_prefix = ""


class Led(Reader):
    """What learns stands before the backbone, as learnt prefixes do."""

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return self.top(self.body(input_ids, attention_mask * (1 + self.top.bias.mean()))[:, 0])


class Stacked(Reader):
    """Its backbone gives two entries per example."""

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return self.top(self.body(input_ids, attention_mask)[: len(input_ids)].mean(1))


class StackedBody(Body):
    def forward(self, ids: Any, mask: Any) -> Any:
        return torch.cat([super().forward(ids, mask)] * 2)


class ShorterBody(Body):
    """Its outputs have neither the length of the text nor always the same."""

    def forward(self, ids: Any, mask: Any) -> Any:
        return super().forward(ids, mask)[:, 1:]


class Shorter(Reader):
    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return self.top(self.body(input_ids, attention_mask)[:, 0])


def with_body(model: Reader, body: Body) -> Reader:
    model.body = body
    return model


def make_context(folder: Path, task: Any = None, strategy: Any = None, model: Any = None, **settings: Any) -> TrainingContext:
    draw = np.random.default_rng(0)
    examples = [{"input_ids": draw.integers(3, 20, 2 + row % 5).tolist(), "label": row % 2} for row in range(ROWS)]
    settings = {"epochs": 3.0, "batch_size": 5, "learning_rate": 0.05, "weight_decay": 0.1, "keep": "last", **settings}
    return tiny.make_context(folder, task or Words(), strategy or Top(), model or Reader(), examples[:-6], examples[-6:], **settings)


class Told(Callbacks):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_info(self, text: str) -> None:
        self.notes.append(text)


def trained(made: TrainingContext, stop: int | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights at the end, and what is said of the features."""
    said = reports(tiny.trained(made, stop))
    return {name: value.clone() for name, value in made.model.state_dict().items()}, said


def reports(loop: Loop) -> dict[str, Any]:
    return loop.accelerators.report()["feature_cache"]


def refused(made: TrainingContext) -> str:
    """Why there are no features."""
    loop = Loop(made, Callbacks())
    loop.train_step()
    loop.close()
    said = reports(loop)
    assert said["used"] is False
    assert not (made.folder / "features").exists()
    assert "forward" not in vars(made.model.body)
    return str(said["reason"])


# ------------------------------------------------------------------------------------------------ the same result


NO_DROPOUT = {
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "roberta": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
    "gpt2": {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0},
}


def of_family(kind: str, task: Any, rows: Any, folder: Path, tiny_model: Any, **settings: Any) -> TrainingContext:
    """A tiny model whose head alone learns."""
    _, base, encoded = tiny.prepared(task, tiny_model(kind, **NO_DROPOUT[kind]), rows)
    origin = local_origin(tiny_model(kind, **NO_DROPOUT[kind]))
    loaded = loading.load(origin, base, task, hubtune.Strategy(), seed=0)
    settings = {"epochs": 2.0, "batch_size": 6, "learning_rate": 0.05, "weight_decay": 0.01, "keep": "last", **settings}
    return tiny.make_context(folder, task, Head(), loaded.model, encoded, encoding.encode(task, rows[:8], base, 60), rows[:8],
                     base=base, newly_initialized=loaded.newly_initialized, compute={"overhead": 8}, **settings)


TEXTS = [{"text": "What a lovely day " * (1 + row % 4) + str(row), "label": "good" if row % 3 else "bad"} for row in range(18)]
TAGS = [{"tokens": [f"word{word}" for word in range(2 + row % 5)], "tags": ["A", "B", "A", "B", "B", "A"][: 2 + row % 5]} for row in range(18)]


@pytest.mark.parametrize(("kind", "task", "rows"), [
    ("bert", TextClassification, TEXTS), ("roberta", TextClassification, TEXTS), ("distilbert", TextClassification, TEXTS),
    ("gpt2", TextClassification, TEXTS), ("distilbert", TokenClassification, TAGS),
], ids=lambda value: value if isinstance(value, str) else "")
def test_the_head_ends_as_it_would_have_ended_without(kind: str, task: Any, rows: Any, tiny_model: Any, tmp_path: Path) -> None:
    once = of_family(kind, task(), rows, tmp_path / "once", tiny_model)
    each = of_family(kind, task(), rows, tmp_path / "each", tiny_model, kernels="plain")
    before = {name: value.clone() for name, value in once.model.state_dict().items()}
    (end, said), (expected, plain) = trained(once), trained(each)
    assert (said["used"], plain) == (True, {"used": False, "reason": "train.kernels=plain"})
    for name, value in end.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-10)
        assert (not torch.equal(value, before[name].double())) is (name in once.newly_initialized), name
    lines = [[json.loads(line) for line in (tmp_path / place / "log.jsonl").read_text().splitlines()] for place in ("once", "each")]
    for one, other in zip(*lines, strict=True):
        assert one.pop("split", None) == other.pop("split", None)
        assert (one.pop("tokens_per_second", 0.0) > 0) is (other.pop("tokens_per_second", 0.0) > 0)
        assert one == pytest.approx(other, rel=1e-9)


def test_only_what_the_head_looks_at_is_kept(tiny_model: Any, tmp_path: Path) -> None:
    made = of_family("bert", TextClassification(), TEXTS, tmp_path / "run", tiny_model)
    _, said = trained(made)
    assert sorted(path.name for path in (tmp_path / "run" / "features").iterdir()) == [
        "manifest.json", "train.pooler_output", "train.table.npy", "validation.pooler_output", "validation.table.npy"]
    assert said["bytes"] == (18 + 8) * 32 * 8
    assert said["dropout"] == "off in the backbone"


def test_a_small_module_ends_the_same_and_its_head_drops_out_alone(tmp_path: Path) -> None:
    def without_dropout() -> Reader:
        model = Reader()
        model.body.drop.p = 0.0
        return model

    end, said = trained(make_context(tmp_path / "once", model=Reader()))  # its backbone's dropout is off
    expected, _ = trained(make_context(tmp_path / "each", model=without_dropout(), kernels="plain"))
    assert said["used"]
    for name, value in end.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-10)


def test_where_padding_matters_only_texts_of_one_length_are_kept_together(tmp_path: Path) -> None:
    """Such a head looks beyond the text, which is refused elsewhere."""
    ends = []
    for kernels in ("auto", "plain"):
        made = make_context(tmp_path / kernels, model=Reader(padding=True), kernels=kernels)
        made.model.body.drop.p = 0.0
        made.compute = replace(made.compute, uniform=True)
        end, said = trained(made)
        assert said["used"] is (kernels == "auto")
        ends.append(end)
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-10, atol=1e-10)


def test_the_backbone_computes_every_example_once(tmp_path: Path) -> None:
    made = make_context(tmp_path)
    loop = Loop(made, told := Told())
    rows = made.model.body.rows
    assert rows[:3] == [1, frozen_backbone.TRIED, 1]
    assert sum(rows[3:]) == ROWS
    calls = len(rows)
    assert "features cached" in told.notes[0]
    loop.run()
    loop.close()
    assert rows[calls:] == [1, 2]  # one trial of which dimension dropout counts rows in
    assert "forward" not in vars(made.model.body)


def test_the_forward_comes_back_whatever_happens(tmp_path: Path) -> None:
    class Breaks(Callbacks):
        def on_progress(self, units: int, **shown: float) -> None:
            raise MemoryError

    made = make_context(tmp_path)
    with pytest.raises(MemoryError):
        Loop(made, Breaks())
    assert "forward" not in vars(made.model.body)
    loop = Loop(made, Callbacks())
    own = made.model.body.forward = lambda *given: torch.zeros(1)
    loop.close()
    made.model.body.forward = own
    Loop(made, Callbacks()).close()
    assert vars(made.model.body)["forward"] is own


# ---------------------------------------------------------------------------------------------------- and refusals


@pytest.mark.parametrize(("case", "reason"), [
    ({"strategy": All()}, "the backbone is trained"),
    ({"strategy": HeadThenAll()}, "the backbone is trained"),
    ({"strategy": Looking()}, "may look at the backbone"),
    ({"model": lambda: Bodiless()}, "no backbone of its own"),
    ({"kernels": "plain"}, "train.kernels=plain"),
    ({"task": Drawn()}, "draws its inputs"),
    ({"task": Left()}, "padded on the right"),
    ({"task": Twice()}, "called 2 times"),
    ({"model": lambda: Led()}, "what learns stands before the backbone"),
    ({"model": lambda: Reader(table=True)}, "called 2 times"),
    ({"model": lambda: Reader(padding=True)}, "the head gives other results"),
    ({"model": lambda: with_body(Stacked(), StackedBody())}, "does not go by examples"),
    ({"model": lambda: with_body(Shorter(), ShorterBody())}, "neither the length of the text"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_computed_once_is_computed_in_every_step(case: dict[str, Any], reason: str, tmp_path: Path) -> None:
    made = {name: value() if name == "model" else value for name, value in case.items()}
    assert reason in refused(make_context(tmp_path, **made))


def test_a_batch_norm_that_follows_the_data_moves_the_backbone(tmp_path: Path) -> None:
    model = Reader()
    model.body.norm = torch.nn.BatchNorm1d(3)
    assert "batch norms" in refused(make_context(tmp_path / "train", model=model, batch_norm="train"))
    assert trained(make_context(tmp_path / "frozen", model=model))[1]["used"]


def test_a_disk_that_is_nearly_full_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "SHARE", 0.0)
    assert "the disk has" in refused(make_context(tmp_path))


def test_several_processes_compute_as_ever(tmp_path: Path) -> None:
    made = make_context(tmp_path)
    context = made.for_acceleration(made.model, frozenset({"top.weight"}), 2, Callbacks(), None)
    assert feature_cache.find(context).report() == {"used": False, "reason": "there are several processes"}


# ------------------------------------------------------------------------------------------------------ and resumes


@pytest.mark.parametrize("stop", [1, 4])
@pytest.mark.parametrize("lost", ["nothing", "all", "a part", "other weights"])
def test_a_resumed_run_ends_bit_for_bit_as_the_other(stop: int, lost: str, tmp_path: Path) -> None:
    end, _ = trained(make_context(tmp_path / "whole"))
    trained(make_context(tmp_path / "stopped"), stop)
    folder = tmp_path / "stopped" / "features"
    kept = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    if lost == "all":
        (folder / "manifest.json").unlink()
    if lost == "a part":
        (folder / "train.output").write_bytes(b"12345678")
    if lost == "other weights":
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({"fingerprint": manifest["fingerprint"][::-1]}))
    again = make_context(tmp_path / "stopped")
    again.resume = True
    found, said = trained(again)
    assert said["used"]
    for name, value in found.items():
        assert torch.equal(value, end[name]), name
    assert ({path: path.stat().st_mtime_ns for path in folder.iterdir()} == kept) is (lost == "nothing")


def test_a_run_goes_on_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(make_context(tmp_path / "with"), 2)
    (tmp_path / "with" / "features" / "manifest.json").unlink()
    with monkeypatch.context() as full:
        full.setattr(feature_cache, "SHARE", 0.0)
        trained(make_context(tmp_path / "without"), 2)
        again = make_context(tmp_path / "with")
        again.resume = True
        with pytest.raises(ResumeError, match="began with cached features"):
            Loop(again, Callbacks())
    again = make_context(tmp_path / "without")
    again.resume = True
    assert trained(again)[1] == {"used": False, "reason": "the run began without"}


def test_a_run_says_so_and_leaves_no_folder(tiny_model: Any, reviews: Path, tmp_path: Path) -> None:
    settings = {"train.max_steps": 6, "train.batch_size": 8, "data.limit": 24, "train.verify": False}
    run = hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, strategy="head", set=settings, out=tmp_path / "head")
    assert run.record["acceleration"]["feature_cache"]["used"]
    assert run.record["acceleration"]["feature_cache"]["bytes"] > 0
    assert not (tmp_path / "head" / "features").exists()
    assert "features" not in run.summary()
    run = hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, strategy=Full.name, set=settings, out=tmp_path / "full")
    assert run.record["acceleration"]["feature_cache"] == {"used": False, "reason": "the backbone is trained"}
