"""Dropout depends on the row: another cut of a step, padding and other rows change rounding only."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tiny import make_context, prepared, sample
from torch.nn import functional

import hubtune
from hubtune.acceleration import composition, kernels, recomputation, row_axes
from hubtune.acceleration.row_dropout import Axes, Packed, RowDraws, dropout_mask
from hubtune.callbacks import Callbacks
from hubtune.training.accumulation import Accumulation

DROPPED = 0.3


def draws(rows: list[int], step: int = 0, **more: Any) -> RowDraws:
    return RowDraws(1, step, rows, **more)


# ------------------------------------------------------------------------------------------------ one mask


@pytest.mark.parametrize("inner", [(), (9,), (6, 33), (3, 6, 7), (2, 2, 5, 8)])
def test_a_row_has_the_same_mask_alone_and_among_others(inner: tuple[int, ...]) -> None:
    together = draws([5, 2, 11]).mask(torch.zeros(3, *inner), DROPPED)
    for place, row in enumerate((5, 2, 11)):
        assert torch.equal(draws([row]).mask(torch.zeros(1, *inner), DROPPED)[0], together[place])


def test_padding_does_not_change_the_mask_of_what_is_not_padding() -> None:
    long, short = (draws([4, 7]).mask(torch.zeros(2, 3, size, size), DROPPED) for size in (11, 6))
    assert torch.equal(long[..., :6, :6], short)


def test_heads_and_choices_that_are_counted_with_rows_follow_their_row() -> None:
    together = draws([4, 7]).mask(torch.zeros(6, 5, 8), DROPPED)
    assert torch.equal(draws([7]).mask(torch.zeros(3, 5, 8), DROPPED), together[3:])
    assert not torch.equal(together[3], together[4])


def test_rows_in_another_dimension_and_tensors_without_rows() -> None:
    second, none = Axes(((3, 1),)), Axes(((2, None),))
    one, all_of = (draws(rows, axes=second).mask(torch.zeros(5, len(rows), 8), DROPPED) for rows in ([7], [4, 7]))
    assert torch.equal(one[:, 0], all_of[:, 1])
    one, all_of = (draws(rows, axes=none).mask(torch.zeros(16, 8), DROPPED) for rows in ([7], [4, 7]))
    assert torch.equal(one, all_of)


def test_examples_end_to_end_have_the_masks_that_they_have_in_rows_of_their_own() -> None:
    packed = Packed(torch.tensor([0, 0, 0, 1, 1, 1, 1, 1]), torch.tensor([0, 1, 2, 0, 1, 2, 3, 4]))
    for ours, theirs in (((1, 8, 9), (2, 5, 9)), ((1, 3, 8, 8), (2, 3, 5, 5))):
        joined = draws([7, 4], packed=packed).mask(torch.zeros(ours), DROPPED)[0]
        apart = draws([7, 4]).mask(torch.zeros(theirs), DROPPED)
        own = [joined[:3], joined[3:]] if len(ours) == 3 else [joined[:, :3, :3], joined[:, 3:, 3:]]
        assert torch.equal(own[0], apart[0][:3] if len(ours) == 3 else apart[0][:, :3, :3])
        assert torch.equal(own[1], apart[1])


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_masks_have_their_share_and_are_independent(probability: float) -> None:
    """Share, and correlation with neighbours along each dimension, the next call, step and row, within 5 standard deviations."""
    def sample(step: int) -> torch.Tensor:
        return (draws(list(range(8)), step).mask(torch.zeros(8, 4, 40, 50), probability) == 0).double() - probability

    masks = [sample(step) for step in range(6)]
    deviation = (probability * (1 - probability)) ** 0.5
    count = masks[0].numel() * len(masks)
    assert abs(float(sum(mask.sum() for mask in masks))) < 5 * deviation * count**0.5
    for one, other in [(mask, mask.roll(1, place)) for place in range(4) for mask in masks] + list(itertools.pairwise(masks)):
        assert abs(float((one * other).sum())) < 5 * deviation**2 * one.numel() ** 0.5
    of_place = sum(mask.sum(0) for mask in masks) / (deviation * 48**0.5)
    assert float(of_place.var()) == pytest.approx(1.0, abs=0.06)


def test_calls_steps_and_seeds_have_masks_of_their_own() -> None:
    values, one = torch.zeros(4, 64), draws([0, 1, 2, 3])
    found = [one.mask(values, 0.5) for _ in range(100)] + [draws([0, 1, 2, 3], step=1).mask(values, 0.5), RowDraws(2, 0, [0, 1, 2, 3]).mask(values, 0.5)]
    assert len({tuple(mask.flatten().tolist()) for mask in found}) == len(found)


# --------------------------------------------------------------------------------------- what a step meets


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dropout_scales_what_it_keeps_and_its_gradient_is_the_mask(dtype: torch.dtype) -> None:
    ones = torch.ones(4, 1000, 103, dtype=dtype, requires_grad=True)
    with kernels.use_kernels(torch.nn.Identity(), (), draws([0, 1, 2, 3])):
        output = functional.dropout(ones, 0.1)
    output.sum().backward()
    mask = output.detach()
    assert float((mask == 0).double().mean()) == pytest.approx(0.1, abs=3e-3)
    assert float(mask.double().mean()) == pytest.approx(1.0, abs=5e-3)
    assert mask.dtype == dtype
    assert torch.equal(ones.grad, mask)


def test_every_way_to_drop_is_ours() -> None:
    values, attended = torch.ones(2, 6, 8, 4), torch.ones(2, 3, 6, 8)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "module": lambda: torch.nn.Dropout(DROPPED)(values), "in place": lambda: functional.dropout(values.clone(), DROPPED, inplace=True),
        "channels": lambda: torch.nn.Dropout2d(DROPPED)(values), "depth": lambda: torch.rand((2, 1, 1)), "layer": lambda: torch.rand([]),
        "like": lambda: torch.rand_like(values),
        "attention": lambda: functional.scaled_dot_product_attention(attended, attended, attended, dropout_p=DROPPED),
    }
    before = torch.get_rng_state()
    for name, way in ways.items():
        with kernels.use_kernels(torch.nn.Identity(), (), draws([0, 1])):
            first, second = way(), way()
        with kernels.use_kernels(torch.nn.Identity(), (), draws([0, 1])):
            assert torch.equal(way(), first), name
        assert not torch.equal(first, second), name
    assert torch.equal(torch.get_rng_state(), before)
    with kernels.use_kernels(torch.nn.Identity(), (), draws([0, 1])):
        channels = torch.nn.Dropout2d(DROPPED)(values).flatten(2)
    assert torch.equal(channels.amin(2), channels.amax(2))


def test_dropout_of_nothing_and_of_all_is_torchs() -> None:
    values = torch.ones(4, 4)
    with kernels.use_kernels(torch.nn.Identity(), (), draws([0, 1, 2, 3])):
        assert torch.equal(functional.dropout(values, 0.3, training=False), values)
        assert torch.equal(functional.dropout(values, 0.0), values)
        assert functional.dropout(values, 1.0).sum() == 0


# ------------------------------------------------------------------------------------------- whole models

TEXTS = [{"text": "good " * count, "label": "yes" if count % 2 else "no"} for count in (2, 9, 4, 7, 3, 12, 5, 8)]

SAME_LENGTH = [{"text": f"{word} good", "label": "yes" if word == "bad" else "no"} for word in ("bad", "good") * 4]
"""For a model whose answers change with padding: only rows of one length meet in a micro-batch."""


def text_classification() -> Any:
    from hubtune_plugins.text.text_classification import TextClassification

    return TextClassification()


def generation(packing: bool) -> Any:
    from hubtune_plugins.generation.text_generation import TextGeneration

    task = TextGeneration()
    return type(task)(replace(task.options, packing=packing))


def summaries() -> Any:
    from hubtune_plugins.generation.text2text_generation import Text2TextGeneration

    return Text2TextGeneration()


def images() -> Any:
    from hubtune_plugins.vision.image_classification import ImageClassification

    return ImageClassification()


def choices() -> Any:
    from hubtune_plugins.text.multiple_choice import MultipleChoice

    return MultipleChoice()


def preferences() -> Any:
    from hubtune_plugins.generation.preference import Preference

    return Preference()


MODELS: dict[str, tuple[str, Callable[[], Any], dict[str, Any]]] = {
    "bert": ("bert", text_classification, {"hidden_dropout_prob": DROPPED, "attention_probs_dropout_prob": DROPPED}),
    "bert, choices": ("bert", choices, {"hidden_dropout_prob": DROPPED}),
    "deberta, with a table of positions": ("deberta-v2", text_classification, {"hidden_dropout_prob": DROPPED, "attention_probs_dropout_prob": DROPPED}),
    "xlnet, positions first": ("xlnet", text_classification, {"dropout": DROPPED}),
    "bart, functional dropout": ("bart", text_classification, {"dropout": DROPPED, "attention_dropout": DROPPED}),
    "gpt2, packed": ("gpt2", lambda: generation(True), {"resid_pdrop": DROPPED, "embd_pdrop": DROPPED, "attn_pdrop": DROPPED}),
    "gpt2, padded": ("gpt2", lambda: generation(False), {"resid_pdrop": DROPPED, "embd_pdrop": DROPPED, "attn_pdrop": DROPPED}),
    "llama": ("llama", lambda: generation(True), {"attention_dropout": DROPPED}),
    "llama, pairs": ("llama", preferences, {"attention_dropout": DROPPED}),
    "t5": ("t5", summaries, {"dropout_rate": DROPPED}),
    "vit": ("vit", images, {"hidden_dropout_prob": DROPPED, "attention_probs_dropout_prob": DROPPED}),
}


def step(kind: str, tiny_model: Callable[..., Path], folder: Path) -> Callable[..., list[torch.Tensor]]:
    """A function that gives the gradient of a step in fp64 for given micro-batches."""
    name, make_task, config = MODELS[kind]
    task = make_task()
    rows = (SAME_LENGTH if name == "xlnet" else TEXTS) if task.name == "text-classification" else sample(task, 8)
    model, base, encoded = prepared(task, tiny_model(name, **config), rows)
    context = make_context(folder / "run", task, hubtune.Strategy(), model, encoded, base=base, batch_size=8)
    accelerator = Accelerator(cpu=True)
    accelerators = composition.find(context.for_acceleration(model, frozenset(), 1, Callbacks(), None))
    accumulation = Accumulation(context, accelerator, torch.amp.GradScaler("cpu", enabled=False), accelerators)

    def compute(cuts: list[list[int]], number: int = 3, again: bool = False) -> list[torch.Tensor]:
        if again:
            assert recomputation.enable(model)
        model.train()
        model.zero_grad()
        means = accumulation.gradient(model, number, 0, cuts)
        return [torch.tensor(list(means.values())), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    return compute


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_do_not_depend_on_micro_batches_with_dropout_on(kind: str, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    compute = step(kind, tiny_model, tmp_path)
    whole = compute([list(range(8))])
    for cuts in ([[0, 1, 2, 3], [4, 5, 6, 7]], [[4, 1], [0], [7, 2, 3, 6, 5]], [[item] for item in range(8)]):
        for one, other in zip(whole, compute(cuts), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)
    other_step = compute([list(range(8))], number=4)
    assert any(not torch.allclose(one, other, rtol=1e-3) for one, other in zip(whole[1:], other_step[1:], strict=True))


@pytest.mark.parametrize("kind", ["bert", "gpt2, packed", "t5"])
def test_activations_that_are_computed_again_drop_the_same(kind: str, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    compute = step(kind, tiny_model, tmp_path)
    kept = compute([[0, 1, 2, 3], [4, 5, 6, 7]])
    for one, other in zip(kept, compute([[0, 1, 2, 3], [4, 5, 6, 7]], again=True), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)


def test_a_model_without_dropout_meets_no_draws(tiny_model: Callable[..., Path]) -> None:
    task = generation(True)
    model, base, encoded = prepared(task, tiny_model("llama"), sample(task, 4))
    assert row_axes.find(model.train(), task, base, encoded) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("probability", [1e-6, 2**-16, 0.05, 0.1, 0.5, 0.9, 0.999])
def test_masks_made_in_integers_are_those_of_a_comparison(dtype: torch.dtype, probability: float) -> None:
    words = torch.arange(-32_768, 32_768, dtype=torch.int16).view(256, 256)[:, :255]  # strided, as of odd widths
    kept = words.int() >= round((probability - 0.5) * 65_536)
    expected = kept.to(dtype) * torch.tensor(1 / (1 - probability), dtype=dtype)
    assert torch.equal(dropout_mask(words, probability, dtype), expected)
    assert not dropout_mask(words, 1 - 1e-7, dtype).any()
