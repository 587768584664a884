"""Blocks that compute no padding give the loss, gradient and weights of blocks that do, or are not used, and say why."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch

import hubtune
from hubtune.acceleration import padding_free
from hubtune.acceleration.padding_free import Segments
from hubtune.data import batching
from hubtune.evaluation import inference

WORDS = ["a", "walk", "along", "the", "river", "and", "what", "a", "lovely", "day", "it", "was", "for", "all", "of", "us", "who", "went", "there"]
ROWS = [{"text": " ".join(WORDS[:count]), "label": "long" if count > 6 else "short"} for count in (1, 3, 12, 7, 18, 2, 9, 5, 4, 16, 1, 8)]


def make_context(task: Any, folder: Path, *, precision: str = "fp64", strategy: Any = None) -> tuple[Any, Any]:
    """A model and all that is asked of a training's work."""
    task.options = task.Options() if hasattr(task, "Options") else None
    model, base, encoded = tiny.prepared(task, folder, ROWS, dtype=torch.float64 if precision == "fp64" else torch.float32)
    if strategy is not None:
        model = strategy(model)
    return SimpleNamespace(task=task, base=base, train=encoded, shard=False, compute=SimpleNamespace(precision=precision, device="cpu")), model


@pytest.fixture
def classification() -> Any:
    from hubtune_plugins.text.text_classification import TextClassification

    return TextClassification()


def test_joined_and_apart_undo_each_other_wherever_the_padding_is() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1]])
    now = Segments(mask)
    wide = torch.randn(3, 4, 5) * mask[:, :, None]
    joined = now.joined(wide)
    assert joined.shape == (1, 9, 5)
    assert torch.equal(now.apart(joined), wide)
    assert now.starts.tolist() == [0, 3, 5, 9]
    positions = torch.arange(4)[None]  # one for all examples: each takes its own
    assert now.joined((positions, "other")) == (pytest.approx(torch.tensor([[0, 1, 2, 2, 3, 0, 1, 2, 3]])), "other")
    square = torch.ones(3, 1, 4, 4)
    assert now.joined(square) is square


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "modernbert", "gpt2", "llama", "bart"])
def test_loss_and_gradient_are_those_of_padded_batches(family: str, tiny_model: Any, classification: Any) -> None:
    made, model = make_context(classification, tiny_model(family))
    blocks = padding_free.tried(made, model)
    assert blocks.joined == len(blocks.stack) >= 2
    for wide, narrow in zip(*padding_free.both(blocks, made, model), strict=True):
        torch.testing.assert_close(narrow, wide, rtol=1e-9, atol=1e-12)


def test_tokens_of_a_decoder_are_learnt_alike(tiny_model: Any) -> None:
    from hubtune_plugins.generation.text_generation import TextGeneration

    made, model = make_context(TextGeneration(), tiny_model("llama"))
    blocks = padding_free.tried(made, model)
    for wide, narrow in zip(*padding_free.both(blocks, made, model), strict=True):
        torch.testing.assert_close(narrow, wide, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", ["deberta-v2", "t5", "xlnet"])  # attention with places of its own, and another order of axes
def test_a_model_that_cannot_says_why_and_is_as_it_was(family: str, tiny_model: Any, classification: Any) -> None:
    made, model = make_context(classification, tiny_model(family))
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in model.modules()]
    found = padding_free.find(made, model)
    assert not found.used
    assert len(found.reason) > 20
    assert [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in model.modules()] == hooks


def test_half_precision_is_compared_too(tiny_model: Any, classification: Any) -> None:
    assert padding_free.find(*make_context(classification, tiny_model("bert"), precision="bf16")).used


def test_a_model_that_looks_across_examples_is_refused(tiny_model: Any, classification: Any) -> None:
    made, model = make_context(classification, tiny_model("bert"))

    def mixing(block: Any, given: Any, output: Any) -> Any:
        return output + output.mean(1, keepdim=True)  # over the places of a row: of an example, or of all that stand in it

    model.bert.encoder.layer[0].register_forward_hook(mixing)
    found = padding_free.find(made, model)
    assert not found.used
    assert "would be off by" in found.reason


def test_outside_a_step_nothing_is_joined(tiny_model: Any, classification: Any) -> None:
    made, model = make_context(classification, tiny_model("bert"))
    blocks = padding_free.tried(made, model)
    before = blocks.joined
    inference.answer(model, made.task, made.base, ROWS, made.train)
    assert blocks.joined == before


def test_activations_that_are_computed_again_are_computed_alike(tiny_model: Any, classification: Any) -> None:
    made, model = make_context(classification, tiny_model("llama"))
    batch = inference.batch_for(model, made.task, list(made.train.examples), made.base)
    blocks = padding_free.tried(made, model)

    def gradient() -> list[torch.Tensor]:
        loss = made.task.loss(made.task.forward(model.train(), batch), batch)
        return list(torch.autograd.grad(loss.total, list(model.parameters()), allow_unused=True, materialize_grads=True))

    once = gradient()
    model.activation_checkpointing_enable({"use_reentrant": False})
    with blocks.computing():
        again = gradient()
    assert blocks.joined == len(blocks.stack)
    for one, other in zip(again, once, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def trained(folder: Path, model: Path, **settings: Any) -> dict[str, Any]:
    run = hubtune.train("text-classification", model=str(model), data={"train": ROWS, "validation": ROWS[:4]}, out=folder, set={
        "train.epochs": 2, "train.batch_size": 6, "train.precision": "fp64", "train.sampler": "random", "train.verify": False,
        **{f"train.{name}": value for name, value in settings.items()}})
    record = json.loads((Path(run.folder) / "run.json").read_text(encoding="utf-8"))
    record["losses"] = [line["loss"] for line in map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
                        if "grad_norm" in line]
    return dict(record)


def test_a_whole_training_is_the_same_without_dropout(tiny_model: Any, tmp_path: Path) -> None:
    folder = tiny_model("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    padded = trained(tmp_path / "padded", folder, padding_free="off")
    narrow = trained(tmp_path / "narrow", folder, padding_free="on")
    assert padded["padding_free"] == {"used": False, "reason": "train.padding_free=off"}
    assert narrow["padding_free"]["used"]
    assert narrow["compute"]["padding"] == padding_free.COST
    assert narrow["losses"] == pytest.approx(padded["losses"], rel=1e-9)
    assert narrow["happened"]["padded_tokens"] < padded["happened"]["padded_tokens"]
    again = trained(tmp_path / "again", folder, plan=str(tmp_path / "narrow"))
    assert again["padding_free"]["used"]
    assert again["losses"] == narrow["losses"]


def test_who_asks_for_what_a_model_cannot_is_told(tiny_model: Any, tmp_path: Path) -> None:
    with pytest.raises(hubtune.HubtuneError, match="cannot do without padding"):
        trained(tmp_path / "run", tiny_model("t5"), padding_free="on")


def test_by_default_it_is_used_where_it_saves_much(tiny_model: Any, tmp_path: Path) -> None:
    assert trained(tmp_path / "random", tiny_model("bert"))["padding_free"]["used"]
    bucketed = trained(tmp_path / "bucketed", tiny_model("bert"), sampler="length-bucketed", batch_size=2)
    assert not bucketed["padding_free"]["used"]
    assert "would save" in bucketed["padding_free"]["reason"]
    assert bucketed["compute"]["padding"] == 1.0


def test_where_padding_is_cheap_a_step_is_cut_less() -> None:
    sizes = [40, 4, 4, 4, 4, 4]
    items = list(range(len(sizes)))
    assert len(batching.micro_batches(items, sizes, 64, 1000)) == 2
    assert len(batching.micro_batches(items, sizes, 64, 1000, padding=0.1)) == 1
    assert len(batching.micro_batches(items, sizes, 64, 70, padding=0.1)) == 2  # 60 tokens, and a tenth of 180 places beside


def by_definition(query: Any, key: Any, value: Any, starts: Any, starts_of_keys: Any, longest: int, longest_of_keys: int, *,
                  scale: float, window_size: tuple[int, int], enable_gqa: bool) -> torch.Tensor:
    """What the documentation of `torch.nn.attention.varlen.varlen_attn` says that it computes."""
    assert starts.dtype == torch.int32
    assert int(starts.diff().max()) <= longest
    before, after = (10**6 if side < 0 else side for side in window_size)
    found = []
    for one, two, three in zip(*(part.tensor_split(starts[1:-1].tolist()) for part in (query, key, value)), strict=True):
        place = torch.arange(len(one))
        ahead = place[None] - place[:, None]
        mask = (ahead <= after) & (-ahead <= before)
        q, k, v = (part.transpose(0, 1)[None] for part in (one, two, three))
        found.append(torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=enable_gqa)[0].transpose(0, 1))
    return torch.cat(found)


@pytest.mark.parametrize(("family", "config"), [
    ("bert", {}), ("gpt2", {}), ("llama", {"num_key_value_heads": 2}), ("modernbert", {"local_attention": 6, "global_attn_every_n_layers": 2}),
])
def test_the_kernel_is_asked_for_what_the_model_wants(
    family: str, config: Any, tiny_model: Any, classification: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", by_definition)
    asked = []

    def knows(query: Any, key: Any, value: Any, given: Any) -> bool:
        asked.append(given.get("sliding_window"))
        return True

    monkeypatch.setattr(padding_free, "kernel_knows", knows)
    made, model = make_context(classification, tiny_model(family, **config))
    blocks = padding_free.tried(made, model)
    for wide, narrow in zip(*padding_free.both(blocks, made, model), strict=True):
        torch.testing.assert_close(narrow, wide, rtol=1e-9, atol=1e-12)
    assert any(asked) == (family == "modernbert")


def test_the_kernel_is_for_halves_on_a_gpu_without_dropout() -> None:
    query = torch.zeros(1, 2, 3, 8)
    assert not padding_free.kernel_knows(query, query, query, {})
    gpu = SimpleNamespace(is_cuda=True, dtype=torch.bfloat16, shape=query.shape)
    assert padding_free.kernel_knows(gpu, gpu, gpu, {"dropout": 0.0, "softcap": None})  # type: ignore[arg-type]
    assert not padding_free.kernel_knows(gpu, gpu, gpu, {"dropout": 0.1})  # type: ignore[arg-type]
    assert not padding_free.kernel_knows(gpu, gpu, gpu, {"softcap": 30.0})  # type: ignore[arg-type]


def test_the_plan_of_a_model_that_can_is_refused_for_one_that_cannot(tiny_model: Any, tmp_path: Path) -> None:
    trained(tmp_path / "run", tiny_model("bert"), padding_free="on")
    with pytest.raises(hubtune.HubtuneError, match=r"leave train\.plan out"):
        trained(tmp_path / "other", tiny_model("deberta-v2"), plan=str(tmp_path / "run"))
