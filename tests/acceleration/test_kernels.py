"""The CPU's kernels give what torch's own give: the same numbers, gradients and share of dropped values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from hubtune.acceleration import kernels
from hubtune.devices import device

OWN = functional.scaled_dot_product_attention
PLAIN = {"rows": 3, "heads": 2, "queries": 7, "keys": 7, "width": 8}


def three(dtype: torch.dtype, queries: int = 7, keys: int = 7, value_width: int = 8) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((3, 2, queries, 8), (3, 2, keys, 8), (3, 2, keys, value_width))
    return [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def padded(queries: int = 7, keys: int = 7) -> torch.Tensor:
    mask = torch.ones(3, 1, queries, keys, dtype=torch.bool)
    mask[0, ..., -3:] = False
    mask[1, ..., -1:] = False
    return mask


CASES: dict[str, dict[str, Any]] = {
    "no mask": {}, "a boolean mask": {"attn_mask": padded()}, "causal": {"is_causal": True}, "another scale": {"scale": 0.3},
    "numbers as a mask": {"attn_mask": torch.zeros(3, 1, 7, 7).masked_fill(~padded(), torch.finfo(torch.float32).min)},
    "one mask for all": {"attn_mask": padded()[:1, :, :1]},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_attention_gives_what_torch_gives(case: dict[str, Any], dtype: torch.dtype, near: float) -> None:
    case = {name: value.to(dtype) if getattr(value, "dtype", None) == torch.float32 else value for name, value in case.items()}
    found = []
    for function in (OWN, kernels.attention):
        inputs = three(dtype)
        output = function(*inputs, **case)
        output.square().sum().backward()
        found.append([output, *(value.grad for value in inputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=near, atol=near)


def test_attention_takes_values_of_another_width_and_other_lengths() -> None:
    inputs = three(torch.float64, queries=4, keys=9, value_width=5)
    torch.testing.assert_close(kernels.attention(*inputs, padded(4, 9)), OWN(*inputs, padded(4, 9)))


def test_a_row_that_may_see_nothing_is_still_a_number() -> None:
    mask = padded()
    mask[2] = False
    inputs = three(torch.bfloat16)
    kernels.attention(*inputs, mask).sum().backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in inputs)


def test_a_learnt_bias_gets_its_gradient() -> None:
    found = []
    for function in (OWN, kernels.attention):
        bias = torch.zeros(1, 2, 7, 7, dtype=torch.float64, requires_grad=True)
        function(*three(torch.float64), bias).square().sum().backward()
        found.append(bias.grad)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("dtype", "dropped", "length", "ours"), [
    (torch.float32, 0.0, 64, True), (torch.float32, 0.0, 65, False), (torch.float32, 0.1, 65, True), (torch.float32, 0.1, 513, False),
    (torch.bfloat16, 0.0, 512, True),
])
def test_it_is_ours_where_it_is_faster(dtype: torch.dtype, dropped: float, length: int, ours: bool) -> None:
    values = torch.zeros(1, 1, length, 4, dtype=dtype)
    assert kernels.suits(values, values, values, dropped) is ours


def test_heads_that_share_keys_are_left_to_torch() -> None:
    query, key = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8)
    torch.testing.assert_close(kernels.attention(query, key, key, enable_gqa=True), OWN(query, key, key, enable_gqa=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dropout_drops_the_share_and_keeps_the_mean(dtype: torch.dtype) -> None:
    kernels.draws.seed(1)
    ones = torch.ones(1000, 1003, dtype=dtype, requires_grad=True)
    output = kernels.dropout(ones, 0.1)
    output.sum().backward()
    mask = output.detach()
    assert float((mask == 0).double().mean()) == pytest.approx(0.1, abs=2e-3)
    assert float(mask.double().mean()) == pytest.approx(1.0, abs=4e-3)
    assert mask.dtype == dtype
    assert ones.grad is not None
    assert torch.equal(ones.grad, mask)


def test_dropout_is_drawn_from_its_seed() -> None:
    values = torch.ones(10, 7)
    kernels.draws.seed(3)
    first, second = kernels.dropout(values, 0.5), kernels.dropout(values, 0.5)
    kernels.draws.seed(3)
    assert torch.equal(kernels.dropout(values, 0.5), first)
    assert not torch.equal(first, second)


def test_dropout_of_nothing_and_of_all_is_torchs() -> None:
    values = torch.ones(4, 4)
    assert torch.equal(kernels.dropout(values, 0.3, training=False), values)
    assert torch.equal(kernels.dropout(values, 0.0), values)
    assert kernels.dropout(values, 1.0).sum() == 0


@pytest.mark.parametrize("learns", [True, False])
def test_a_frozen_weight_that_is_cast_once_gives_what_one_that_is_cast_each_time_gives(learns: bool) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 5)
    layer.weight.requires_grad_(learns)
    found = []
    for names in ((), ("linear",)):
        inputs = torch.arange(18.0).view(3, 6).requires_grad_()
        layer.zero_grad()
        with kernels.using(names, 0), torch.autocast("cpu", torch.bfloat16):
            output = layer(inputs)
        output.float().square().sum().backward()
        assert layer.bias.grad is not None
        found.append([output, inputs.grad, layer.bias.grad, *([layer.weight.grad] if learns else [])])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert (layer.weight in kernels.frozen.copies) is not learns


def test_a_weight_that_was_changed_is_cast_anew() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2), requires_grad=False)
    assert torch.equal(kernels.frozen.of(weight, torch.bfloat16), weight)
    with torch.no_grad():
        weight.mul_(2)
    assert torch.equal(kernels.frozen.of(weight, torch.bfloat16), weight)
    weight.data = torch.zeros(2, 2)
    assert torch.equal(kernels.frozen.of(weight, torch.bfloat16), weight)


def test_no_more_than_so_many_casts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "MOST_KEPT", 0)
    weight = torch.nn.Parameter(torch.ones(2, 2), requires_grad=False)
    assert kernels.frozen.of(weight, torch.bfloat16) is weight


def test_torchs_functions_are_back_whatever_happens() -> None:
    before = functional.dropout, functional.scaled_dot_product_attention, functional.linear

    def step() -> None:
        with kernels.using(device.KERNELS["cpu"], 0):
            assert functional.dropout is kernels.dropout
            assert functional.scaled_dot_product_attention is kernels.attention
            assert functional.linear is not before[2]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        step()
    assert (functional.dropout, functional.scaled_dot_product_attention, functional.linear) == before


def test_predictions_in_half_precision_are_near_and_are_said(tiny_model: Any, tmp_path: Any) -> None:
    import hubtune
    from hubtune.errors import RecipeError

    class Told(hubtune.Watcher):
        lines: list[str] = []

        def note(self, text: str) -> None:
            self.lines.append(text)

    rows = [{"text": f"{'good' if n % 2 else 'bad'} thing number {n} " * (1 + n % 5), "label": "yes" if n % 2 else "no"} for n in range(80)]
    run = hubtune.train("text-classification", model=tiny_model("bert"), data=rows, out=tmp_path / "run",
                        set={"train.epochs": 1.0, "train.prove": False})
    exact = run.predict([row["text"] for row in rows])
    for precision in ("bf16", "auto"):
        near = run.predict([row["text"] for row in rows], precision=precision, watcher=Told())
        assert [one["probability"] for one in near] == pytest.approx([one["probability"] for one in exact], abs=0.02)
    assert "predicting in bf16" in Told.lines
    assert run.predict([rows[0]["text"]])[0]["probability"] == pytest.approx(exact[0]["probability"], abs=1e-6)
    with pytest.raises(RecipeError, match="'fp8' is no precision"):
        run.predict(["good"], precision="fp8")
