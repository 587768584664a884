"""The CPU's kernels give what torch's own give: the same numbers, gradients and share of dropped values."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch.nn import functional

from hubtune.acceleration import kernels, lazy_logits
from hubtune.acceleration.row_dropout import RowDraws

OWN = functional.scaled_dot_product_attention


def attention(*given: Any, **named: Any) -> torch.Tensor:
    """Attention as a step computes it."""
    with kernels.use_kernels(torch.nn.Identity(), ("attention",)):
        assert kernels.use_two_products(*given[:3], 0.0, fast=True, drawn=False)
        return functional.scaled_dot_product_attention(*given, **named)


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
    for function in (OWN, attention):
        inputs = three(dtype)
        output = function(*inputs, **case)
        output.square().sum().backward()
        found.append([output, *(value.grad for value in inputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=near, atol=near)


def test_attention_takes_values_of_another_width_and_other_lengths() -> None:
    inputs = three(torch.float64, queries=4, keys=9, value_width=5)
    torch.testing.assert_close(attention(*inputs, padded(4, 9)), OWN(*inputs, padded(4, 9)))


def test_a_row_that_may_see_nothing_is_still_a_number() -> None:
    mask = padded()
    mask[2] = False
    inputs = three(torch.bfloat16)
    attention(*inputs, mask).sum().backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in inputs)


def test_a_trained_bias_gets_its_gradient() -> None:
    found = []
    for function in (OWN, attention):
        bias = torch.zeros(1, 2, 7, 7, dtype=torch.float64, requires_grad=True)
        function(*three(torch.float64), bias).square().sum().backward()
        found.append(bias.grad)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("dtype", "dropped", "length", "ours"), [
    (torch.float32, 0.0, 64, True), (torch.float32, 0.0, 65, False), (torch.float32, 0.1, 513, True), (torch.bfloat16, 0.0, 512, True),
    (torch.bfloat16, 0.0, 513, False),
])
def test_it_is_ours_where_it_is_faster_or_has_dropout(dtype: torch.dtype, dropped: float, length: int, ours: bool) -> None:
    values = torch.zeros(1, 1, length, 4, dtype=dtype)
    assert kernels.use_two_products(values, values, values, dropped, fast=True, drawn=dropped > 0) is ours
    assert kernels.use_two_products(values, values, values, dropped, fast=False, drawn=dropped > 0) is (dropped > 0)


@pytest.mark.parametrize("masked", [False, True])
def test_heads_that_share_keys_are_rows_of_one_product(masked: bool) -> None:
    found = []
    mask = torch.randn(2, 4, 5, 5, dtype=torch.float64) if masked else None
    for function in (OWN, attention):
        torch.manual_seed(0)
        parts = [torch.randn(2, heads, 5, 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2)]
        output = function(*parts, attn_mask=mask, is_causal=not masked, enable_gqa=True)
        output.square().sum().backward()
        found.append([output, *(part.grad for part in parts)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


def test_nothing_of_torch_is_replaced_and_other_threads_meet_torch() -> None:
    names = ("dropout", "scaled_dot_product_attention", "linear", "cross_entropy")
    before = [getattr(functional, name) for name in names]
    values, seen = torch.ones(1, 6), []

    def elsewhere() -> None:
        torch.manual_seed(5)
        seen.append(functional.dropout(values, 0.5))

    def step() -> None:
        with kernels.use_kernels(torch.nn.Identity(), ("attention", "logits"), RowDraws(0, 0, [0])):
            assert [getattr(functional, name) for name in names] == before
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            seen.append(functional.dropout(values, 0.5))
            raise ZeroDivisionError

    elsewhere()
    with pytest.raises(ZeroDivisionError):
        step()
    assert torch.equal(seen[0], seen[1])
    elsewhere()
    assert torch.equal(seen[0], seen[3])
    assert getattr(kernels.current, "functions", None) is None


def test_contexts_may_be_left_in_any_order() -> None:
    layer = torch.nn.Linear(4, 9000)
    first, second = lazy_logits.defer_large_layers(layer), lazy_logits.defer_large_layers(layer)
    first.__enter__()
    second.__enter__()
    assert type(layer(torch.ones(1, 4))) is lazy_logits.Logits
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert "forward" not in vars(layer)


def test_predictions_in_half_precision_are_near_and_are_said(tiny_model: Any, tmp_path: Any) -> None:
    import hubtune
    from hubtune.errors import RecipeError

    class Told(hubtune.Callbacks):
        lines: list[str] = []

        def on_info(self, text: str) -> None:
            self.lines.append(text)

    rows = [{"text": f"{'good' if n % 2 else 'bad'} thing number {n} " * (1 + n % 5), "label": "yes" if n % 2 else "no"} for n in range(80)]
    run = hubtune.train("text-classification", model=tiny_model("bert"), data=rows, out=tmp_path / "run",
                        set={"train.epochs": 1.0, "train.verify": False})
    exact = run.predict([row["text"] for row in rows])
    for precision in ("bf16", "auto"):
        near = run.predict([row["text"] for row in rows], precision=precision, callbacks=Told())
        assert [one["probability"] for one in near] == pytest.approx([one["probability"] for one in exact], abs=0.02)
    assert "predicting in bf16" in Told.lines
    assert run.predict([rows[0]["text"]])[0]["probability"] == pytest.approx(exact[0]["probability"], abs=1e-6)
    with pytest.raises(RecipeError, match="unknown precision 'fp8'"):
        run.predict(["good"], precision="fp8")
